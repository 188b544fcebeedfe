/**
 * How CUDA fails, in sentences. Knows no library. Thrown by ffi/ and by whoever allocates.
 */
import { UnsupportedModelError } from '../../engine.ts';

/** No CUDA on this machine: a library or a device is missing. The message is one sentence for the operator. */
export class CudaUnavailableError extends UnsupportedModelError {}

/** A call into a CUDA library returned an error. */
export class CudaError extends Error {
  override readonly name = 'CudaError';
  readonly code: number;

  /** `reason`: the library's own name and words for the code. */
  constructor(call: string, code: number, reason: string) {
    super(`${call} failed with ${code}: ${reason}`);
    this.code = code;
  }
}

/** The device has less memory than was asked for. */
export class DeviceMemoryError extends UnsupportedModelError {
  constructor({ bytes, what, free, total }: { bytes: number; what: string; free: number; total: number }) {
    super(`The CUDA device has too little memory: ${mebibytes(bytes)} MiB for ${what} were asked for, ${mebibytes(free)} of ${mebibytes(total)} MiB `
      + 'are free; lower --kv-tokens, --step-tokens or --max-sequences, or take a smaller model.');
  }
}

/** A kernel does not compile: a defect of the program, not of the machine. */
export class KernelCompileError extends Error {
  override readonly name = 'KernelCompileError';

  constructor(file: string, options: readonly string[], log: string) {
    super(`${file} does not compile with ${options.join(' ')}:\n${log.trim()}`);
  }
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}
