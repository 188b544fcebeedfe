/**
 * Whether this machine has what the cuda engine needs: libraries and a device. Asked by benchmarks and tests.
 */
import { Device } from './device.ts';
import { CublasLt } from './ffi/cublas-lt.ts';
import { CudaUnavailableError } from './ffi/cuda-error.ts';
import type { SearchSettings } from './ffi/library-search.ts';
import { Nvrtc } from './ffi/nvrtc.ts';

/** The sentence that says what is missing, or null. */
export function whyNoCuda(libraries: SearchSettings): string | null {
  try {
    Device.open(libraries).close();
    Nvrtc.open(libraries);
    CublasLt.open(libraries);
    return null;
  } catch (error) {
    if (error instanceof CudaUnavailableError) return error.message;
    throw error;
  }
}
