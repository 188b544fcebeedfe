/**
 * cuBLASLt, matrix products: declarations, checks, and the numbers of its enumerations that we use. Knows no
 * shapes and picks no algorithm. Called by ../matrix-products.ts.
 * Reference: https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api
 */
import { CudaError } from './cuda-error.ts';
import type { SearchSettings } from './library-search.ts';
import { openLibrary, type Argument, type NativeFunction, type SharedLibrary } from './shared-library.ts';

const prototypes = {
  create: 'int cublasLtCreate(uint64_t *handle)',
  destroy: 'int cublasLtDestroy(uint64_t handle)',
  operationCreate: 'int cublasLtMatmulDescCreate(uint64_t *operation, int computeType, int scaleType)',
  operationSet: 'int cublasLtMatmulDescSetAttribute(uint64_t operation, int attribute, void *value, size_t bytes)',
  operationDestroy: 'int cublasLtMatmulDescDestroy(uint64_t operation)',
  layoutCreate: 'int cublasLtMatrixLayoutCreate(uint64_t *layout, int type, uint64_t rows, uint64_t columns, int64_t leading)',
  layoutDestroy: 'int cublasLtMatrixLayoutDestroy(uint64_t layout)',
  preferenceCreate: 'int cublasLtMatmulPreferenceCreate(uint64_t *preference)',
  preferenceSet: 'int cublasLtMatmulPreferenceSetAttribute(uint64_t preference, int attribute, void *value, size_t bytes)',
  preferenceDestroy: 'int cublasLtMatmulPreferenceDestroy(uint64_t preference)',
  heuristics: 'int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, uint64_t operation, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t preference, int asked, void *results, int *returned)',
  multiply: 'int cublasLtMatmul(uint64_t handle, uint64_t operation, void *alpha, uint64_t a, uint64_t aLayout, uint64_t b, uint64_t bLayout, void *beta, uint64_t c, uint64_t cLayout, uint64_t d, uint64_t dLayout, void *algorithm, uint64_t workspace, size_t workspaceBytes, uint64_t stream)',
} as const;

export type CublasLtCall = keyof typeof prototypes;

/** cudaDataType_t. */
export const dataTypes = { float32: 0, fp16: 2, bf16: 14, fp8e4m3: 28 } as const;
/** CUBLAS_COMPUTE_32F: products of 16-bit numbers are summed in float32. */
export const COMPUTE_FLOAT32 = 68;
/** cublasLtMatmulDescAttributes_t. */
export const operationAttributes = { transposeA: 3, transposeB: 4, epilogue: 7, bias: 8, biasType: 26, scaleA: 17, scaleB: 18, scaleModeA: 31, scaleModeB: 32 } as const;
/** cublasOperation_t and cublasLtEpilogue_t. */
export const TRANSPOSE = 1;
export const EPILOGUE_BIAS = 4;
export const PREFERENCE_WORKSPACE_BYTES = 1;
/** cublasLtMatmulHeuristicResult_t: the algorithm first (64 bytes), then its workspace (uint64) and state (int32). */
export const HEURISTIC_BYTES = 96;
export const ALGORITHM_BYTES = 64;

const statusNames: Readonly<Record<number, string>> = {
  1: 'not initialised', 3: 'allocation failed', 7: 'invalid value', 8: 'architecture mismatch', 13: 'execution failed', 14: 'internal error', 15: 'not supported',
};

export class CublasLt {
  readonly path: string;
  readonly #functions: Readonly<Record<CublasLtCall, NativeFunction>>;

  constructor(library: SharedLibrary) {
    this.path = library.path;
    this.#functions = library.functions(prototypes);
  }

  static open(settings: SearchSettings): CublasLt {
    return new CublasLt(openLibrary({ stem: 'libcublasLt', purpose: 'the CUDA matrix products', loaderName: null }, settings));
  }

  call(name: CublasLtCall, ...args: Argument[]): void {
    const code = this.#functions[name](...args);
    if (code !== 0) throw new CudaError(/cublasLt\w+/.exec(prototypes[name])![0], code, statusNames[code] ?? 'see cublasStatus_t');
  }

  /** The status itself: an algorithm that a device refuses is an answer. */
  attempt(name: CublasLtCall, ...args: Argument[]): number {
    return this.#functions[name](...args);
  }

  handle(name: CublasLtCall, ...args: Argument[]): bigint {
    const out = new BigUint64Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }
}
