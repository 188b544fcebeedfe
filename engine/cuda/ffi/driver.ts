/**
 * The CUDA driver API: declarations and checks, nothing else. Every call throws CudaError with the driver's own
 * name of the error. Device addresses, streams, events, modules and graphs are bigints. Called by the files of
 * engine/cuda/.
 * Reference: https://docs.nvidia.com/cuda/cuda-driver-api
 */
import { CudaError } from './cuda-error.ts';
import type { SearchSettings } from './library-search.ts';
import { openLibrary, type Argument, type NativeFunction, type SharedLibrary } from './shared-library.ts';

const prototypes = {
  init: 'int cuInit(uint32_t flags)',
  driverVersion: 'int cuDriverGetVersion(int *version)',
  deviceCount: 'int cuDeviceGetCount(int *count)',
  deviceGet: 'int cuDeviceGet(int *device, int ordinal)',
  deviceName: 'int cuDeviceGetName(void *name, int length, int device)',
  deviceAttribute: 'int cuDeviceGetAttribute(int *value, int attribute, int device)',
  contextRetain: 'int cuDevicePrimaryCtxRetain(uint64_t *context, int device)',
  contextRelease: 'int cuDevicePrimaryCtxRelease_v2(int device)',
  contextSet: 'int cuCtxSetCurrent(uint64_t context)',
  memoryInfo: 'int cuMemGetInfo_v2(uint64_t *free, uint64_t *total)',
  allocate: 'int cuMemAlloc_v2(uint64_t *pointer, size_t bytes)',
  free: 'int cuMemFree_v2(uint64_t pointer)',
  allocateHost: 'int cuMemHostAlloc(uint64_t *pointer, size_t bytes, uint32_t flags)',
  freeHost: 'int cuMemFreeHost(uint64_t pointer)',
  copyToDevice: 'int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)',
  copyToHost: 'int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)',
  copyOnDevice: 'int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream)',
  fillBytes: 'int cuMemsetD8Async(uint64_t to, uint8_t value, size_t bytes, uint64_t stream)',
  streamCreate: 'int cuStreamCreate(uint64_t *stream, uint32_t flags)',
  streamDestroy: 'int cuStreamDestroy_v2(uint64_t stream)',
  streamSynchronize: 'int cuStreamSynchronize(uint64_t stream)',
  streamWait: 'int cuStreamWaitEvent(uint64_t stream, uint64_t event, uint32_t flags)',
  eventCreate: 'int cuEventCreate(uint64_t *event, uint32_t flags)',
  eventDestroy: 'int cuEventDestroy_v2(uint64_t event)',
  eventRecord: 'int cuEventRecord(uint64_t event, uint64_t stream)',
  eventQuery: 'int cuEventQuery(uint64_t event)',
  eventSynchronize: 'int cuEventSynchronize(uint64_t event)',
  eventElapsed: 'int cuEventElapsedTime(float *milliseconds, uint64_t from, uint64_t to)',
  moduleLoad: 'int cuModuleLoadData(uint64_t *module, void *image)',
  moduleUnload: 'int cuModuleUnload(uint64_t module)',
  moduleFunction: 'int cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name)',
  functionSet: 'int cuFuncSetAttribute(uint64_t function, int attribute, int value)',
  functionGet: 'int cuFuncGetAttribute(int *value, int attribute, uint64_t function)',
  launch: 'int cuLaunchKernel(uint64_t f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, uint32_t shared, uint64_t stream, void *params, void *extra)',
  launchWith: 'int cuLaunchKernelEx(void *config, uint64_t f, void *params, void *extra)',
  captureBegin: 'int cuStreamBeginCapture_v2(uint64_t stream, int mode)',
  captureEnd: 'int cuStreamEndCapture(uint64_t stream, uint64_t *graph)',
  graphInstantiate: 'int cuGraphInstantiateWithFlags(uint64_t *exec, uint64_t graph, uint64_t flags)',
  graphLaunch: 'int cuGraphLaunch(uint64_t exec, uint64_t stream)',
  graphExecDestroy: 'int cuGraphExecDestroy(uint64_t exec)',
  graphDestroy: 'int cuGraphDestroy(uint64_t graph)',
  tensorMap: 'int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, uint64_t address, void *dimensions, void *strides, void *box, void *elementStrides, int interleave, int swizzle, int l2, int outside)',
} as const satisfies Record<string, string>;

export type DriverCall = keyof typeof prototypes;

/** CUdevice_attribute. */
export const deviceAttributes = {
  multiprocessors: 16, major: 75, minor: 76, l2Bytes: 38, sharedBytesPerBlock: 97, sharedBytesPerMultiprocessor: 81, memoryClockKhz: 36, memoryBusBits: 37,
} as const;
/** CUfunction_attribute. */
export const functionAttributes = { localBytes: 3, registers: 4, maxDynamicSharedBytes: 8, preferredShared: 9 } as const;

/** CUresult codes that callers tell apart. */
export const resultCodes = { success: 0, outOfMemory: 2, noDevice: 100, notReady: 600 } as const;
/** Work of this stream does not wait for the legacy default stream. */
export const STREAM_NON_BLOCKING = 1;
/** Capture of one thread's own stream: other threads may go on calling the driver. */
export const CAPTURE_THREAD_LOCAL = 1;
/** An event that measures no time is cheaper. */
export const EVENT_NO_TIMING = 2;

export class Driver {
  /** Where libcuda was loaded from. */
  readonly path: string;
  readonly #functions: Readonly<Record<DriverCall, NativeFunction>>;
  readonly #errorName: NativeFunction;

  constructor(library: SharedLibrary) {
    this.path = library.path;
    this.#functions = library.functions(prototypes);
    this.#errorName = library.function('int cuGetErrorName(int code, _Out_ const char **name)');
  }

  /** Throws CudaUnavailableError when libcuda is not there. */
  static open(settings: SearchSettings): Driver {
    return new Driver(openLibrary({ stem: 'libcuda', purpose: 'the driver of NVIDIA GPUs', loaderName: 'libcuda.so.1' }, settings));
  }

  /** Throws CudaError unless the driver says success. */
  call(name: DriverCall, ...args: Argument[]): void {
    const code = this.#functions[name](...args);
    if (code !== resultCodes.success) throw new CudaError(functionName(name), code, this.errorName(code));
  }

  /** The result code itself, for codes that are answers and not failures. */
  attempt(name: DriverCall, ...args: Argument[]): number {
    return this.#functions[name](...args);
  }

  /** The raw function, for the paths where every 100 ns count; the caller checks the code. */
  raw(name: DriverCall): NativeFunction {
    return this.#functions[name];
  }

  /** A call whose first argument is a handle or an address that it writes. */
  handle(name: DriverCall, ...args: Argument[]): bigint {
    const out = new BigUint64Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }

  /** A call whose first argument is an int that it writes. */
  integer(name: DriverCall, ...args: Argument[]): number {
    const out = new Int32Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }

  /** CUDA_ERROR_INVALID_VALUE and its likes. */
  errorName(code: number): string {
    const out: [string | null] = [null];
    const known = (this.#errorName as (code: number, out: [string | null]) => number)(code, out) === resultCodes.success;
    return known && out[0] !== null ? out[0] : 'an error that the driver does not name';
  }
}

function functionName(name: DriverCall): string {
  return /cu\w+/.exec(prototypes[name])![0];
}
