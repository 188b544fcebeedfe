/**
 * What a tokenizer's model does to text in which no added token is left, and the growing buffer it writes to.
 * byte-level-bpe.ts and library-tokenizer.ts implement it; tokenizer.ts calls it between the added tokens.
 */
export interface SectionEncoder {
  /** The model's Unicode normalisation. */
  normalize(text: string): string;
  /** Appends the ids of a normalised text. `first`: the text stands at the very start of what is encoded. */
  encode(text: string, first: boolean, out: IdBuffer): void;
  /** Roughly how many bytes a second it encodes, to decide what may run on a busy event loop. */
  readonly bytesPerSecond: number;
}

/** Token ids appended one by one or many at once; doubles as it grows. */
export class IdBuffer {
  #ids = new Int32Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(id: number): void {
    if (this.#length === this.#ids.length) this.#grow(1);
    this.#ids[this.#length++] = id;
  }

  /** Appends `length` ids from `start` on. */
  append(ids: Int32Array, start: number, length: number): void {
    if (this.#length + length > this.#ids.length) this.#grow(length);
    // Words have one to three tokens: a loop beats TypedArray.set here.
    for (let i = 0; i < length; i++) this.#ids[this.#length + i] = ids[start + i]!;
    this.#length += length;
  }

  /** A copy of exactly what was appended, from `start` on; its memory is the caller's to transfer. */
  toIds(start = 0): Int32Array<ArrayBuffer> {
    return this.#ids.slice(start, this.#length);
  }

  #grow(extra: number): void {
    const larger = new Int32Array(Math.max(2 * this.#ids.length, this.#length + extra));
    larger.set(this.#ids.subarray(0, this.#length));
    this.#ids = larger;
  }
}
