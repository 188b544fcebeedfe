/**
 * NVRTC, the run-time compiler: declarations and checks. Turns the source of a kernel into a cubin for one
 * architecture. Knows no cache and no device. Called by ../compiler.ts.
 * Reference: https://docs.nvidia.com/cuda/nvrtc
 */
import { CudaError, KernelCompileError } from './cuda-error.ts';
import type { SearchSettings } from './library-search.ts';
import { openLibrary, type NativeFunction, type SharedLibrary } from './shared-library.ts';

const prototypes = {
  version: 'int nvrtcVersion(int *major, int *minor)',
  create: 'int nvrtcCreateProgram(uint64_t *program, const char *source, const char *name, int count, const char **headers, const char **names)',
  compile: 'int nvrtcCompileProgram(uint64_t program, int count, const char **options)',
  logSize: 'int nvrtcGetProgramLogSize(uint64_t program, uint64_t *bytes)',
  log: 'int nvrtcGetProgramLog(uint64_t program, void *log)',
  cubinSize: 'int nvrtcGetCUBINSize(uint64_t program, uint64_t *bytes)',
  cubin: 'int nvrtcGetCUBIN(uint64_t program, void *cubin)',
  destroy: 'int nvrtcDestroyProgram(uint64_t *program)',
} as const;

type NvrtcCall = keyof typeof prototypes;

/** A source and the headers that it may include, by name. */
export interface KernelSource {
  readonly name: string;
  readonly text: string;
  readonly headers: ReadonlyMap<string, string>;
}

const COMPILATION_FAILED = 6;

export class Nvrtc {
  readonly path: string;
  /** '13.0'; part of the key of what it compiled. */
  readonly version: string;
  readonly #functions: Readonly<Record<NvrtcCall, NativeFunction>>;

  constructor(library: SharedLibrary) {
    this.path = library.path;
    this.#functions = library.functions(prototypes);
    const major = new Int32Array(1);
    const minor = new Int32Array(1);
    this.#call('version', major, minor);
    this.version = `${major[0]!}.${minor[0]!}`;
  }

  static open(settings: SearchSettings): Nvrtc {
    return new Nvrtc(openLibrary({ stem: 'libnvrtc', purpose: 'the CUDA run-time compiler', loaderName: null }, settings));
  }

  /** -> cubin. Throws KernelCompileError with the compiler's log. */
  compile({ name, text, headers }: KernelSource, options: readonly string[]): Uint8Array {
    const program = new BigUint64Array(1);
    this.#call('create', program, text, name, headers.size, [...headers.values()], [...headers.keys()]);
    try {
      const code = this.#functions.compile(program[0]!, options.length, options);
      if (code === COMPILATION_FAILED) throw new KernelCompileError(name, options, this.#log(program[0]!));
      if (code !== 0) throw new CudaError('nvrtcCompileProgram', code, this.#log(program[0]!) || 'no log');
      const cubin = new Uint8Array(this.#size('cubinSize', program[0]!));
      this.#call('cubin', program[0]!, cubin);
      return cubin;
    } finally {
      this.#call('destroy', program);
    }
  }

  #log(program: bigint): string {
    const bytes = new Uint8Array(this.#size('logSize', program));
    this.#call('log', program, bytes);
    return new TextDecoder().decode(bytes).replaceAll('\0', '');
  }

  #size(call: 'logSize' | 'cubinSize', program: bigint): number {
    const out = new BigUint64Array(1);
    this.#call(call, program, out);
    return Number(out[0]!);
  }

  #call(name: NvrtcCall, ...args: Parameters<NativeFunction>): void {
    const code = this.#functions[name](...args);
    if (code !== 0) throw new CudaError(/nvrtc\w+/.exec(prototypes[name])![0], code, 'see nvrtcResult');
  }
}
