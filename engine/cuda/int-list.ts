/** 32-bit integers in a row that grows: page ids by the thousand go in as arrays, not one by one. Used by run-tables.ts. */

const FIRST_CAPACITY = 64;

export class IntList {
  length = 0;
  #numbers: Int32Array;

  /** `capacity`: as many as are expected. */
  constructor(capacity = FIRST_CAPACITY) {
    this.#numbers = new Int32Array(capacity);
  }

  push(number: number): void {
    this.#reserve(1);
    this.#numbers[this.length++] = number;
  }

  /** Four at once: rows of tables are of four numbers, or of a multiple of four. */
  pushRow(a: number, b: number, c: number, d: number): void {
    this.#reserve(4);
    const at = this.length;
    this.#numbers[at] = a;
    this.#numbers[at + 1] = b;
    this.#numbers[at + 2] = c;
    this.#numbers[at + 3] = d;
    this.length = at + 4;
  }

  append(numbers: Int32Array): void {
    this.#reserve(numbers.length);
    this.#numbers.set(numbers, this.length);
    this.length += numbers.length;
  }

  /** What is there now; later additions do not show in it. [length] */
  view(): Int32Array {
    return this.#numbers.subarray(0, this.length);
  }

  #reserve(count: number): void {
    if (this.length + count <= this.#numbers.length) return;
    const grown = new Int32Array(2 * (this.length + count));
    grown.set(this.view());
    this.#numbers = grown;
  }
}
