/**
 * The pages of one sequence in the order of its text. Knows ids only and frees nothing itself: whoever
 * releases an entry gives its page back. Called by kv-cache.ts; engines read `entries`.
 */

const RELEASED = -1;

export class PageTable {
  #entries = new Int32Array(16);
  #length = 0;
  #numChanges = 0;
  /** What `entries` gives; null until it is asked for. */
  #view: Int32Array | null = null;
  #releasedFrom = 0;
  #releasedTo = 0;

  /** Entries, released ones included. */
  get length(): number {
    return this.#length;
  }

  /** Entries that still have a page. */
  get numHeld(): number {
    return this.#length - (this.#releasedTo - this.#releasedFrom);
  }

  /** Physical page of each 64 positions, -1 where released: a view, valid until the next push. [length] */
  get entries(): Int32Array {
    return this.#view ??= this.#entries.subarray(0, this.#length);
  }

  /** How often an entry that was there became another. */
  get numChanges(): number {
    return this.#numChanges;
  }

  push(page: number): void {
    if (this.#length === this.#entries.length) {
      const grown = new Int32Array(2 * this.#length);
      grown.set(this.#entries);
      this.#entries = grown;
    }
    this.#entries[this.#length++] = page;
    this.#view = null;
  }

  /** Puts another page in an entry that is not released; returns the page it had. */
  replace(index: number, page: number): number {
    const replaced = this.#entries[index]!;
    this.#entries[index] = page;
    this.#numChanges++;
    return replaced;
  }

  /** Marks a range released and returns the pages it had. Ranges of one table start at the same entry and grow. */
  release(range: { from: number; to: number }): Int32Array {
    const from = Math.max(range.from, this.#releasedTo);
    const to = Math.min(range.to, this.#length);
    if (to <= from) return new Int32Array(0);
    if (this.#releasedTo === 0) this.#releasedFrom = from;
    if (range.from !== this.#releasedFrom) throw new Error(`released from entry ${this.#releasedFrom}, now from ${range.from}`);
    const pages = this.#entries.slice(from, to);
    this.#entries.fill(RELEASED, from, to);
    this.#numChanges++;
    this.#releasedTo = to;
    return pages;
  }

  /** The pages that are not released, in order. */
  heldPages(): Int32Array {
    return this.entries.filter((page) => page !== RELEASED);
  }
}
