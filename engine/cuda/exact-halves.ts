/**
 * Weights of bf16 checkpoints as fp16 numbers without loss: a matrix is multiplied by the power of two that brings its
 * largest number just below fp16's largest one, where fp16 has three bits more than bf16 and 30 powers of two of
 * range below it. Done on the device, in place. Knows no layers. Called by device-weights.ts.
 */
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';
import type { Kernels } from './kernels.ts';

const THREADS = 256;
const BLOCKS = 1024;
const ELEMENT_BYTES = 2;
/** Largest power of two of fp16's normal numbers. */
const TOP_EXPONENT = 15;
const BF16_BIAS = 127;
const BF16_FRACTION_BITS = 7;

export class ExactHalves {
  readonly #kernels: Pick<Kernels, 'get'>;
  readonly #memory: DeviceMemory;
  readonly #largest: DeviceBuffer;

  constructor(kernels: Pick<Kernels, 'get'>, memory: DeviceMemory) {
    this.#kernels = kernels;
    this.#memory = memory;
    this.#largest = memory.allocate(4, 'the largest weight');
  }

  /** bf16 numbers become fp16 numbers. -> what these are to be multiplied by */
  convert(matrix: DeviceBuffer): number {
    this.#memory.clear(this.#largest);
    this.#kernels.get('largest_bf16').launch({ grid: [BLOCKS], block: [THREADS] }, matrix.address, this.#largest.address, matrix.bytes / ELEMENT_BYTES);
    const largest = new Uint32Array(this.#memory.read(this.#largest))[0]!;
    const scale = largest === 0 ? 1 : 2 ** ((largest >> BF16_FRACTION_BITS) - BF16_BIAS - TOP_EXPONENT);
    this.rescale(matrix, 1 / scale, 'bf16');
    return scale;
  }

  /** Multiplies in place; numbers are fp16 afterwards. */
  rescale({ address, bytes }: DeviceBuffer, factor: number, from: 'bf16' | 'fp16'): void {
    this.#kernels.get('rescale').launch({ grid: [BLOCKS], block: [THREADS] }, address, bytes / ELEMENT_BYTES, from === 'bf16' ? 1 : 0, factor);
  }
}
