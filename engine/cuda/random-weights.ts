/**
 * Weights of any shape out of one block of random 16-bit numbers: speed does not depend on what a model knows.
 * Called by the benchmarks.
 */
import { decoderTensors } from '../model/decoder-tensors.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { WeightSource } from './device-weights.ts';
import type { ElementType } from './matrix-products.ts';

const BLOCK = 1 << 24;
/** Sign and fraction are random, the exponent is that of 2^-6: rows of 4096 then neither grow nor vanish much. */
const EXPONENTS: Readonly<Record<ElementType, number>> = { bf16: 121 << 7, fp16: 9 << 10 };
const FRACTION_BITS: Readonly<Record<ElementType, number>> = { bf16: 7, fp16: 10 };
const RANDOM_BITS: Readonly<Record<ElementType, number>> = { bf16: 0x807f, fp16: 0x83ff };

export class RandomWeights implements WeightSource {
  readonly #shapes: ReadonlyMap<string, readonly number[]>;
  readonly #numbers = new Map<ElementType, Uint16Array>();

  constructor(spec: ModelSpec) {
    this.#shapes = new Map(decoderTensors(spec).filter(({ optional }) => !optional).map(({ name, shape }) => [name, shape]));
  }

  has(name: string): boolean {
    return this.#shapes.has(name);
  }

  shape(name: string): readonly number[] {
    const shape = this.#shapes.get(name);
    if (shape === undefined) throw new RangeError(`there is no tensor ${name}`);
    return shape;
  }

  /** 'F16': of whichever 16-bit type they are asked for, nothing is to be converted. */
  type(): string {
    return 'F16';
  }

  half(_name: string, type: ElementType, target: Uint16Array, first: number): void {
    const numbers = this.#numbers.get(type) ?? randomNumbers(type, BLOCK);
    this.#numbers.set(type, numbers);
    for (let done = 0; done < target.length;) {
      const from = (first + done) % BLOCK;
      const count = Math.min(BLOCK - from, target.length - done);
      target.set(numbers.subarray(from, from + count), done);
      done += count;
    }
  }
}

/** A block of random numbers, over and over: 2^-6 to 2^-5 in size, or 2^exponent to twice that. */
export function randomNumbers(type: ElementType, length: number, exponent = -6): Uint16Array {
  const bits = EXPONENTS[type] + ((exponent + 6) << FRACTION_BITS[type]);
  const numbers = new Uint16Array(length);
  let state = 1;
  for (let i = 0; i < Math.min(BLOCK, length); i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    numbers[i] = ((state >>> 16) & RANDOM_BITS[type]) | bits;
  }
  for (let done = BLOCK; done < length; done *= 2) numbers.copyWithin(done, 0, Math.min(done, length - done));
  return numbers;
}
