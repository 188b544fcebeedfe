/**
 * Who has each page. A page is free, or held by one or more sequences, or kept by the prefix tree, or both.
 * Knows ids and counts only; which sequence or which prefix is not its business. Called by kv-cache.ts.
 *
 *   free ──take──▶ held ──keep──▶ held + kept ──drop──▶ kept only ──unkeep──▶ free
 *     ◀────drop─────┘                   ▲────────hold───────┘
 */

export class PagePool {
  readonly numPages: number;
  /** Sequences that hold the page. [pages] */
  readonly #holders: Uint32Array;
  /** 1 if the prefix tree keeps the page. [pages] */
  readonly #kept: Uint8Array;
  /** Ids of free pages, a stack: the first numFree entries are valid. [pages] */
  readonly #free: Int32Array;
  #numFree: number;
  #numHeld = 0;

  constructor(numPages: number) {
    this.numPages = numPages;
    this.#holders = new Uint32Array(numPages);
    this.#kept = new Uint8Array(numPages);
    this.#free = Int32Array.from({ length: numPages }, (_, i) => numPages - 1 - i);
    this.#numFree = numPages;
  }

  get numFree(): number {
    return this.#numFree;
  }

  /** Pages that some sequence holds. */
  get numHeld(): number {
    return this.#numHeld;
  }

  /** Pages that only the prefix tree keeps. */
  get numKeptOnly(): number {
    return this.numPages - this.#numFree - this.#numHeld;
  }

  numHolders(page: number): number {
    return this.#holders[page]!;
  }

  isKept(page: number): boolean {
    return this.#kept[page] === 1;
  }

  /** A free page, now held once; null if none is free. */
  take(): number | null {
    if (this.#numFree === 0) return null;
    const page = this.#free[--this.#numFree]!;
    this.#holders[page] = 1;
    this.#numHeld++;
    return page;
  }

  /** One more sequence reads a page that is in use. */
  hold(page: number): void {
    if (this.#holders[page] === 0 && this.#kept[page] === 0) throw new Error(`page ${page} is free and cannot be shared`);
    if (this.#holders[page]!++ === 0) this.#numHeld++;
  }

  drop(page: number): void {
    if (this.#holders[page] === 0) throw new Error(`page ${page} has 0 holders, expected at least 1`);
    if (--this.#holders[page]! > 0) return;
    this.#numHeld--;
    if (this.#kept[page] === 0) this.#free[this.#numFree++] = page;
  }

  keep(page: number): void {
    if (this.#holders[page] === 0 || this.#kept[page] === 1) throw new Error(`page ${page} must be held and not kept yet`);
    this.#kept[page] = 1;
  }

  unkeep(page: number): void {
    if (this.#kept[page] === 0) throw new Error(`page ${page} is not kept`);
    this.#kept[page] = 0;
    if (this.#holders[page] === 0) this.#free[this.#numFree++] = page;
  }
}
