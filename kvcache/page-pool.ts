/**
 * Who has each page, and how many rows of memory are left. A page is free, or held by one or more sequences, or kept
 * by the prefix tree, or both. It is taken with a row for every KV head; the rows of its passing heads have holders of
 * their own, and may go back before the page does. Knows ids and counts only; which sequence or which prefix is not
 * its business. Called by kv-cache.ts.
 *
 *   free ──take──▶ held ──keep──▶ held + kept ──drop──▶ kept only ──unkeep──▶ free
 *     ◀────drop─────┘                   ▲────────hold───────┘
 */
import { NO_HEADS } from './page-lists/lists.ts';
import type { PageOwner } from './page-owner.ts';

export class PagePool {
  readonly numRows: number;
  readonly #owner: PageOwner;
  /** Sequences that hold the page. [ids] */
  readonly #holders: Uint32Array;
  /** Of these, those that read the rows of its passing heads. [ids] */
  readonly #passingHolders: Uint32Array;
  /** 1 if the prefix tree keeps the page. [ids] */
  readonly #kept: Uint8Array;
  /** Passing heads whose rows the page still has; none where it has none to lose. [ids] */
  readonly #passing: Int32Array[];
  /** Rows that the page has without those. [ids] */
  readonly #lasting: Uint32Array;
  /** Ids of free pages, a stack: the first numFreeIds entries are valid. [ids] */
  readonly #freeIds: Int32Array;
  #numFreeIds: number;
  #heldPages = 0;
  #freeRows: number;
  #heldRows = 0;

  constructor(numPages: number, owner: PageOwner) {
    const ids = owner.numIds;
    this.numRows = this.#freeRows = numPages * owner.headsPerPage;
    this.#owner = owner;
    this.#holders = new Uint32Array(ids);
    this.#passingHolders = new Uint32Array(ids);
    this.#kept = new Uint8Array(ids);
    this.#passing = new Array<Int32Array>(ids).fill(NO_HEADS);
    this.#lasting = new Uint32Array(ids);
    this.#freeIds = Int32Array.from({ length: ids }, (_, i) => ids - 1 - i);
    this.#numFreeIds = ids;
  }

  get rowsPerPage(): number {
    return this.#owner.headsPerPage;
  }

  get numIds(): number {
    return this.#owner.numIds;
  }

  get freeRows(): number {
    return this.#freeRows;
  }

  /** Rows that some sequence reads. */
  get heldRows(): number {
    return this.#heldRows;
  }

  /** Rows that only the prefix tree has a use for. */
  get cachedRows(): number {
    return this.numRows - this.#freeRows - this.#heldRows;
  }

  get numFreeIds(): number {
    return this.#numFreeIds;
  }

  /** Pages that only the prefix tree keeps. */
  get numCachedIds(): number {
    return this.numIds - this.#numFreeIds - this.#heldPages;
  }

  numHolders(page: number): number {
    return this.#holders[page]!;
  }

  numPassingHolders(page: number): number {
    return this.#passingHolders[page]!;
  }

  isKept(page: number): boolean {
    return this.#kept[page] === 1;
  }

  /** Rows of passing heads that the page still has. */
  passingRows(page: number): number {
    return this.#passing[page]!.length;
  }

  lastingRows(page: number): number {
    return this.#lasting[page]!;
  }

  /** A free page with all its rows, now held once; null if there is none. */
  take(passing: Int32Array): number | null {
    const { rowsPerPage } = this;
    if (this.#numFreeIds === 0 || this.#freeRows < rowsPerPage) return null;
    const page = this.#freeIds[--this.#numFreeIds]!;
    this.#holders[page] = this.#passingHolders[page] = 1;
    this.#passing[page] = passing;
    this.#lasting[page] = rowsPerPage - passing.length;
    this.#heldPages++;
    this.#freeRows -= rowsPerPage;
    this.#heldRows += rowsPerPage;
    return page;
  }

  /** One more sequence reads a page that is in use; not yet the rows of its passing heads. */
  hold(page: number): void {
    if (this.#holders[page] === 0 && this.#kept[page] === 0) throw new Error(`page ${page} is free and cannot be shared`);
    if (this.#holders[page]!++ > 0) return;
    this.#heldPages++;
    this.#heldRows += this.#lasting[page]!;
  }

  /** One that holds the page reads the rows of its passing heads too. */
  holdPassing(page: number): void {
    if (this.#passingHolders[page]! >= this.#holders[page]!) throw new Error(`page ${page} has ${this.#holders[page]} holders, all of them read all heads`);
    if (this.#passingHolders[page]!++ === 0) this.#heldRows += this.passingRows(page);
  }

  /** Its passing heads have passed the page for one that holds it. */
  dropPassing(page: number): void {
    if (this.#passingHolders[page] === 0) throw new Error(`page ${page} has 0 holders that read all heads, expected at least 1`);
    if (--this.#passingHolders[page]! > 0) return;
    this.#heldRows -= this.passingRows(page);
    if (this.#kept[page] === 0) this.thin(page);
  }

  /** One that holds the page, and no passing heads of it, lets go. */
  drop(page: number): void {
    if (this.#holders[page] === 0) throw new Error(`page ${page} has 0 holders, expected at least 1`);
    if (--this.#holders[page]! > 0) return;
    if (this.#passingHolders[page]! > 0) throw new Error(`page ${page} has 0 holders and ${this.#passingHolders[page]} that read all heads`);
    this.#heldPages--;
    this.#heldRows -= this.#lasting[page]!;
    if (this.#kept[page] === 0) this.#free(page);
  }

  keep(page: number): void {
    if (this.#holders[page] === 0 || this.#kept[page] === 1) throw new Error(`page ${page} must be held and not kept yet`);
    this.#kept[page] = 1;
  }

  unkeep(page: number): void {
    if (this.#kept[page] === 0) throw new Error(`page ${page} is not kept`);
    this.#kept[page] = 0;
    if (this.#holders[page] === 0) this.#free(page);
    else if (this.#passingHolders[page] === 0) this.thin(page);
  }

  /** Frees the rows of its passing heads, which nobody reads. */
  thin(page: number): void {
    if (this.#passingHolders[page]! > 0) throw new Error(`page ${page} has ${this.#passingHolders[page]} holders that read all heads, expected none`);
    const passing = this.#passing[page]!;
    if (passing.length === 0) return;
    this.#passing[page] = NO_HEADS;
    this.#freeRows += passing.length;
    this.#owner.release(page, passing);
  }

  #free(page: number): void {
    this.#freeRows += this.#lasting[page]! + this.passingRows(page);
    this.#passing[page] = NO_HEADS;
    this.#lasting[page] = 0;
    this.#freeIds[this.#numFreeIds++] = page;
    this.#owner.release(page, null);
  }
}
