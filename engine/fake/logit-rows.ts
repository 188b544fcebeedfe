/**
 * Rows of logits with one peak each, in a buffer that is kept from step to step: a step costs one write
 * per row, not one per token of the vocabulary. Called by fake-engine.ts.
 */

/** A peak that any temperature in use leaves certain, and that a logit_bias of 100 still overcomes. */
const PEAK = 20;
const ELSEWHERE = -70;

export class LogitRows {
  readonly #vocab: number;
  #rows = new Float32Array(0); // [capacity, vocab]
  #peaks: number[] = [];

  constructor(vocab: number) {
    this.#vocab = vocab;
  }

  get numRows(): number {
    return this.#peaks.length;
  }

  /** Forgets all rows and makes room for `capacity` new ones. */
  clear(capacity: number): void {
    for (const index of this.#peaks) this.#rows[index] = ELSEWHERE;
    this.#peaks = [];
    if (capacity * this.#vocab > this.#rows.length) this.#rows = new Float32Array(capacity * this.#vocab).fill(ELSEWHERE);
  }

  push(peak: number): void {
    const index = this.#peaks.length * this.#vocab + peak;
    this.#rows[index] = PEAK;
    this.#peaks.push(index);
  }

  /** Rows from `first` on, valid until `clear`. [rows, vocab] */
  from(first: number): Float32Array {
    return this.#rows.subarray(first * this.#vocab, this.#peaks.length * this.#vocab);
  }
}
