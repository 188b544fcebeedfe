/**
 * Seeded random numbers for sampling: xoshiro128** (Blackman and Vigna, prng.di.unimi.it), seeded through
 * splitmix32. One generator per sequence, so that a seed gives the same draws whatever else is running.
 * Called by sampler.ts.
 */
export class Random {
  readonly #state = new Uint32Array(4);

  /** `seed`: any safe integer; all of its 53 bits and its sign count, in every word: the first number is made of one word alone. */
  constructor(seed: number) {
    const low = seed >>> 0;
    const high = Math.floor(seed / 2 ** 32) >>> 0;
    for (let i = 0; i < 4; i++) this.#state[i] = splitmix32(splitmix32(low + Math.imul(i + 1, 0x9e3779b9)) ^ (high + i));
  }

  /** One that will give the same numbers from here on. */
  copy(): Random {
    const copy = new Random(0);
    copy.#state.set(this.#state);
    return copy;
  }

  /** Uniform in [0, 1), 53 bits. */
  next(): number {
    const high = this.#next32() >>> 5;
    const low = this.#next32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  #next32(): number {
    const s = this.#state;
    const result = Math.imul(rotateLeft(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const shifted = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= shifted;
    s[3] = rotateLeft(s[3]!, 11);
    return result;
  }
}

function rotateLeft(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

function splitmix32(seed: number): number {
  let z = seed | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return z ^ (z >>> 15);
}
