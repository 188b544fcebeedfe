/**
 * Matrix products through cuBLASLt: y = scale x W^T, sums in float32. For each shape a plan is made once: the library
 * proposes algorithms, and where a shape comes back often the fastest of them is found by timing. Knows no
 * layers. Called by cuda-ops.ts.
 */
import type { Device } from './device.ts';
import type { DeviceBuffer } from './device-memory.ts';
import { CudaError } from './ffi/cuda-error.ts';
import type { CublasLt} from './ffi/cublas-lt.ts';
import {
  ALGORITHM_BYTES, COMPUTE_FLOAT32, dataTypes, EPILOGUE_BIAS, HEURISTIC_BYTES, operationAttributes, PREFERENCE_WORKSPACE_BYTES, TRANSPOSE,
} from './ffi/cublas-lt.ts';

export type ElementType = 'bf16' | 'fp16';

export interface Product {
  /** [rows, inner] of the element type. */
  readonly x: bigint;
  readonly rows: number;
  /** Weights. [columns, inner] */
  readonly weight: bigint;
  readonly columns: number;
  readonly inner: number;
  /** [columns], or null. */
  readonly bias: bigint | null;
  /** [rows, columns] */
  readonly y: bigint;
  readonly output: 'element' | 'float32';
  /** What sums are multiplied by, before the bias is added; 1 unless said otherwise. */
  readonly scale?: number;
}

interface Plan {
  readonly operation: bigint;
  readonly a: bigint;
  readonly b: bigint;
  readonly d: bigint;
  /** cublasLtMatmulAlgo_t. */
  algorithm: Uint8Array;
}

/** Enough for every algorithm that cuBLASLt proposes on Hopper. */
const WORKSPACE_BYTES = 64 << 20;
const MAX_PROPOSALS = 12;
/** Shapes with at most this many rows are those of decode: they come back at each step. */
const MAX_TUNED_ROWS = 256;
const TUNING_RUNS = 3;
/** Weights of one shape that tuning takes in turn, so that it does not measure the cache. */
const MAX_TUNING_WEIGHTS = 8;

export class MatrixProducts {
  readonly #device: Device;
  readonly #library: CublasLt;
  readonly #handle: bigint;
  readonly #type: number;
  readonly #workspace: DeviceBuffer;
  readonly #plans = new Map<string, Plan>();
  /** Weights by shape, for tuning. */
  readonly #weights = new Map<string, bigint[]>();
  /** The library reads it while a product is issued. */
  readonly #scale = Float32Array.of(1);
  readonly #zero = Float32Array.of(0);

  constructor(library: CublasLt, { device, workspace, type }: { device: Device; workspace: DeviceBuffer; type: ElementType }) {
    this.#library = library;
    this.#device = device;
    this.#workspace = workspace;
    this.#type = dataTypes[type];
    this.#handle = library.handle('create');
  }

  static readonly workspaceBytes = WORKSPACE_BYTES;

  /** Tells of a weight that products will have, for tuning. */
  register(weight: bigint, columns: number, inner: number): void {
    const key = `${columns}x${inner}`;
    const known = this.#weights.get(key);
    if (known === undefined) this.#weights.set(key, [weight]);
    else known.push(weight);
  }

  /** No weight that was told of is there any more. */
  forgetWeights(): void {
    this.#weights.clear();
  }

  /** Issues the product on the stream. The first of a shape makes its plan, which may not happen in a capture. */
  multiply(product: Product): void {
    if (product.rows === 0) return;
    const key = `${product.rows} ${product.columns} ${product.inner} ${product.output} ${product.bias === null ? 0 : 1}`;
    let plan = this.#plans.get(key);
    if (plan === undefined) {
      plan = this.#plan(product);
      this.#plans.set(key, plan);
    }
    this.#issue(plan, product);
  }

  close(): void {
    for (const plan of this.#plans.values()) this.#destroy(plan);
    this.#plans.clear();
    this.#library.call('destroy', this.#handle);
  }

  /** Row-major y = x W^T is, column by column, y^T = W x^T: the weights come first, transposed. */
  #plan(product: Product): Plan {
    const { rows, columns, inner, bias, output } = product;
    const library = this.#library;
    const operation = library.handle('operationCreate', COMPUTE_FLOAT32, dataTypes.float32);
    library.call('operationSet', operation, operationAttributes.transposeA, Int32Array.of(TRANSPOSE), 4);
    if (bias !== null) {
      library.call('operationSet', operation, operationAttributes.epilogue, Int32Array.of(EPILOGUE_BIAS), 4);
      library.call('operationSet', operation, operationAttributes.biasType, Int32Array.of(this.#type), 4);
      library.call('operationSet', operation, operationAttributes.bias, BigUint64Array.of(bias), 8);
    }
    const plan: Plan = {
      operation,
      a: library.handle('layoutCreate', this.#type, inner, columns, inner),
      b: library.handle('layoutCreate', this.#type, inner, rows, inner),
      d: library.handle('layoutCreate', output === 'float32' ? dataTypes.float32 : this.#type, columns, rows, columns),
      algorithm: new Uint8Array(ALGORITHM_BYTES),
    };
    try {
      const proposals = this.#proposals(plan, product);
      plan.algorithm = rows <= MAX_TUNED_ROWS ? this.#fastest(plan, product, proposals) : proposals[0]!;
    } catch (error) {
      this.#destroy(plan);
      throw error;
    }
    return plan;
  }

  #destroy({ operation, a, b, d }: Plan): void {
    this.#library.call('operationDestroy', operation);
    for (const layout of [a, b, d]) this.#library.call('layoutDestroy', layout);
  }

  /** Algorithms, the most promising first. */
  #proposals({ operation, a, b, d }: Plan, { rows, columns, inner }: Product): Uint8Array[] {
    const library = this.#library;
    const preference = library.handle('preferenceCreate');
    library.call('preferenceSet', preference, PREFERENCE_WORKSPACE_BYTES, BigUint64Array.of(BigInt(WORKSPACE_BYTES)), 8);
    const results = new Uint8Array(MAX_PROPOSALS * HEURISTIC_BYTES);
    const returned = new Int32Array(1);
    library.call('heuristics', this.#handle, operation, a, b, d, d, preference, MAX_PROPOSALS, results, returned);
    library.call('preferenceDestroy', preference);
    const view = new DataView(results.buffer);
    const proposals = Array.from({ length: returned[0]! }, (_, i) => i * HEURISTIC_BYTES)
      .filter((at) => view.getInt32(at + ALGORITHM_BYTES + 8, true) === 0)
      .map((at) => results.slice(at, at + ALGORITHM_BYTES));
    if (proposals.length === 0) throw new CudaError('cublasLtMatmulAlgoGetHeuristic', 15, `no algorithm for ${rows} x ${inner} by ${inner} x ${columns}`);
    return proposals;
  }

  /** Results do not depend on the choice but for the order of sums. */
  #fastest(plan: Plan, product: Product, proposals: readonly Uint8Array[]): Uint8Array {
    const weights = (this.#weights.get(`${product.columns}x${product.inner}`) ?? [product.weight]).slice(0, MAX_TUNING_WEIGHTS);
    let best = proposals[0]!;
    let bestTime = Infinity;
    for (const algorithm of proposals) {
      plan.algorithm = algorithm;
      if (this.#attempt(plan, product) !== 0) continue;
      const time = this.#device.time(() => {
        for (let run = 0; run < TUNING_RUNS; run++) for (const weight of weights) this.#attempt(plan, { ...product, weight });
      });
      if (time < bestTime) [best, bestTime] = [algorithm, time];
    }
    return best;
  }

  #issue(plan: Plan, product: Product): void {
    const status = this.#attempt(plan, product);
    if (status !== 0) throw new CudaError('cublasLtMatmul', status, `${product.rows} x ${product.inner} by ${product.inner} x ${product.columns}`);
  }

  #attempt({ operation, a, b, d, algorithm }: Plan, { x, weight, bias, y, scale = 1 }: Product): number {
    this.#scale[0] = scale;
    if (bias !== null) this.#library.call('operationSet', operation, operationAttributes.bias, BigUint64Array.of(bias), 8);
    return this.#library.attempt(
      'multiply', this.#handle, operation, this.#scale, weight, a, x, b, this.#zero, y, d, y, d, algorithm,
      this.#workspace.address, WORKSPACE_BYTES, this.#device.stream);
  }
}
