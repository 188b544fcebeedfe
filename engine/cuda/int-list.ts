/** 32-bit integers in a row that grows: page ids by the thousand go in as arrays, not one by one. Used by run-tables.ts. */

const FIRST_CAPACITY = 1024;

export class IntList {
  length = 0;
  #numbers = new Int32Array(FIRST_CAPACITY);

  push(number: number): void {
    this.#reserve(1);
    this.#numbers[this.length++] = number;
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
