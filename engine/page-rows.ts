/**
 * Which row of memory holds a KV head's part of a page. Rows are one pool for all layers, so that what the heads of one
 * page give back serves any head of another. A page gets a row for every head when it is first written, loses those of
 * the heads that are released, and the rest with its id. Knows numbers only. Owned by the memory of an engine.
 */

/** Ids for each whole page: pages may lose up to three of four rows before ids are what is short. */
const IDS_PER_PAGE = 4;

export interface PageRowsSize {
  /** Whole pages that there are rows for. */
  readonly pages: number;
  readonly ids: number;
  /** Of all layers. */
  readonly heads: number;
}

export class PageRows {
  readonly #heads: number;
  /** Row + 1, or 0 for none: untouched entries take no memory. [ids, heads] */
  readonly #rows: Int32Array;
  /** Rows that were given back, a stack: the first #numFree entries are valid. */
  readonly #free: Int32Array;
  #numFree = 0;
  /** Rows from here on were never given out. */
  #firstFresh = 0;

  constructor({ pages, ids, heads }: PageRowsSize) {
    const numRows = pages * heads;
    this.#heads = heads;
    this.#rows = new Int32Array(ids * heads);
    this.#free = new Int32Array(numRows);
  }

  static idsFor(pages: number): number {
    return IDS_PER_PAGE * pages;
  }

  /** head: layer * kvHeads + head. Throws where the head has no row: it would read what is another's. */
  of(page: number, head: number): number {
    const row = this.#rows[page * this.#heads + head]! - 1;
    if (row < 0) throw new RangeError(`page ${page} is read by head ${head}, which has no row there`);
    return row;
  }

  /** The rows of many pages at once, to target[at..]. Throws as `of` does. */
  fill(target: Int32Array, at: number, { pages, head }: { pages: Int32Array; head: number }): void {
    const rows = this.#rows;
    const heads = this.#heads;
    for (let i = 0; i < pages.length; i++) {
      const row = rows[pages[i]! * heads + head]! - 1;
      target[at + i] = row < 0 ? this.of(pages[i]!, head) : row;
    }
  }

  has(page: number, head: number): boolean {
    return this.#rows[page * this.#heads + head]! > 0;
  }

  /** What `count` pages have: row + 1, or 0 for none. A view. [count, heads] */
  entries(page: number, count: number): Int32Array {
    return this.#rows.subarray(page * this.#heads, (page + count) * this.#heads);
  }

  /** Gives the page a row for each head that has none. -> whether there was any */
  place(page: number): boolean {
    const first = page * this.#heads;
    let lacked = false;
    for (let at = first; at < first + this.#heads; at++) {
      if (this.#rows[at] !== 0) continue;
      this.#rows[at] = this.#take(page) + 1;
      lacked = true;
    }
    return lacked;
  }

  /** null: all that the page has. */
  release(page: number, heads: Int32Array | null): void {
    const first = page * this.#heads;
    if (heads === null) for (let at = first; at < first + this.#heads; at++) this.#freeAt(at);
    else for (const head of heads) this.#freeAt(first + head);
  }

  #take(page: number): number {
    if (this.#numFree > 0) return this.#free[--this.#numFree]!;
    if (this.#firstFresh === this.#free.length) throw new RangeError(`no row of KV memory is free for page ${page}`);
    return this.#firstFresh++;
  }

  #freeAt(at: number): void {
    const row = this.#rows[at]!;
    if (row === 0) return;
    this.#rows[at] = 0;
    this.#free[this.#numFree++] = row - 1;
  }
}
