/**
 * The face of this folder: a sequence is matched against known prefixes, opened, given pages as it grows,
 * shares its full pages, lets go of what its heads have passed, and is released. Page ids and rows only; the bytes
 * behind them belong to the engine. Called by the scheduler.
 */
import { PAGE_TOKENS, type PageListPolicy, type PageRange } from './page-lists/page-list.ts';
import { NO_HEADS, NO_RANGE, pagesFor } from './page-lists/lists.ts';
import { wholePages, type PageOwner } from './page-owner.ts';
import { PagePool } from './page-pool.ts';
import { PageTable } from './page-table.ts';
import { PrefixTree, type PrefixMatch, type PrefixNode } from './prefix-tree.ts';

/** What of a policy decides which pages a sequence reads. */
export type Reading = Pick<PageListPolicy, 'spanTokens' | 'passingHeads' | 'passedPages'>;

/** A known prefix, as a sequence of this policy reads it. */
export interface KnownPrefix extends PrefixMatch {
  readonly passing: Int32Array;
  /** Of the prefix: pages that the passing heads have passed. */
  readonly passed: PageRange;
}

/** What one sequence has in the cache, from `open` to `release`. */
export interface SequencePages {
  readonly table: PageTable;
  /** Pages that are computed, and shared, as one. */
  readonly spanPages: number;
  /** Heads that read some of the pages no more; none where all read alike. */
  readonly passing: Int32Array;
  /** Whether the rows that they leave behind stay known, for others that read the text. */
  readonly keepsPassed: boolean;
  /** The pages that they have passed: entries of the table whose rows of these heads are others'. */
  passed: PageRange;
  /** Leading pages that are the prefix tree's. */
  numShared: number;
  /** Where they end in the tree, locked; null once nothing more is shared. */
  cursor: PrefixNode | null;
}

export class KvCache {
  readonly #pool: PagePool;
  readonly #tree = new PrefixTree();
  readonly #open = new Set<SequencePages>();
  /** Kept pages whose rows of passing heads nobody reads, and since when: the oldest first. */
  readonly #passedByAll = new Map<number, number>();

  constructor(numPages: number, owner: PageOwner = wholePages(numPages)) {
    this.#pool = new PagePool(numPages, owner);
  }

  /** Rows of all whole pages: one for each KV head of each page. */
  get numRows(): number {
    return this.#pool.numRows;
  }

  get freeRows(): number {
    return this.#pool.freeRows;
  }

  /** Rows that only the prefix cache keeps. */
  get cachedRows(): number {
    return this.#pool.cachedRows;
  }

  get numPages(): number {
    return this.numRows / this.#pool.rowsPerPage;
  }

  /** In whole pages, as the next two. */
  get numFree(): number {
    return this.#pool.freeRows / this.#pool.rowsPerPage;
  }

  get numHeld(): number {
    return this.#pool.heldRows / this.#pool.rowsPerPage;
  }

  /** What only the prefix cache keeps. */
  get numCached(): number {
    return this.#pool.cachedRows / this.#pool.rowsPerPage;
  }

  /** Rows of a text of `numPages` pages of which the passing heads have passed `passed`. */
  rowsOf(numPages: number, passing: Int32Array, passed: PageRange): number {
    return numPages * this.#pool.rowsPerPage - this.#passingOf(passing).length * Math.max(0, passed.to - passed.from);
  }

  rowsHeld({ table, passing, passed }: SequencePages): number {
    return this.rowsOf(table.numHeld, passing, passed);
  }

  /**
   * The longest known prefix of `tokens` within a namespace, in whole spans, and never all of it: the last
   * token is always computed, for its logits. Changes nothing; open it before anything else changes.
   */
  match(namespace: string, tokens: Int32Array, reading: Reading): KnownPrefix {
    const passing = this.#passingOf(reading.passingHeads);
    const known = this.#tree.match(namespace, tokens.subarray(0, tokens.length - 1), reading.spanTokens / PAGE_TOKENS);
    const match = this.#tree.shorten(known, passing.length === 0 ? known.pages.length : this.#readablePages(known, reading));
    return { ...match, passing, passed: passing.length === 0 ? NO_RANGE : within(reading.passedPages(match.pages.length * PAGE_TOKENS), match.pages.length) };
  }

  /** Rows that would be left for others to take after opening `match`: what the tree has locked is held, all else can be evicted. */
  rowsAvailableAfter({ pages, passed }: KnownPrefix): number {
    let awakened = 0;
    pages.forEach((page, index) => {
      if (this.#pool.numHolders(page) === 0) awakened += this.#pool.lastingRows(page);
      if (!isIn(passed, index) && this.#pool.numPassingHolders(page) === 0) awakened += this.#pool.passingRows(page);
    });
    return this.freeRows + this.cachedRows - awakened;
  }

  /** Begins a sequence with a match's pages. */
  open(match: KnownPrefix, { keepsPassed = true } = {}): SequencePages {
    const { spanPages, passing, passed } = match;
    const pages: SequencePages = { table: new PageTable(), spanPages, passing, keepsPassed, passed, numShared: match.pages.length, cursor: this.#tree.lock(match) };
    match.pages.forEach((page, index) => {
      this.#pool.hold(page);
      if (!isIn(passed, index)) this.#holdPassing(page);
      pages.table.push(page);
    });
    this.#open.add(pages);
    return pages;
  }

  /** Gives the table pages for `tokens` positions, evicting prefixes if it must. False, and nothing taken, if there are too few. */
  reserve(pages: SequencePages, tokens: number): boolean {
    const numMissing = pagesFor(tokens) - pages.table.length;
    if (!this.#freeUp(numMissing)) return false;
    for (let i = 0; i < numMissing; i++) pages.table.push(this.#pool.take(pages.passing)!);
    return true;
  }

  /**
   * Shares the first `numTokens` of `text`, whose keys and values are written. Whole spans. Of a page that another
   * sequence shared before, the table takes that one and gives its own copy back: a locked copy that nobody holds
   * could be neither read nor evicted.
   */
  commit(pages: SequencePages, text: Int32Array, numTokens: number): void {
    const { table: { entries }, spanPages } = pages;
    for (; pages.cursor !== null && pages.numShared * PAGE_TOKENS < numTokens; pages.numShared++) {
      const page = entries[pages.numShared]!;
      const { node, isKept } = this.#tree.extend(pages.cursor, text, { index: pages.numShared, page, spanPages });
      pages.cursor = node;
      if (isKept) this.#pool.keep(page);
      else if (!this.#unite(pages, node)) {
        this.#stopSharing(pages);
        return;
      }
    }
  }

  /** From now on `range` is what the passing heads of the sequence have passed. It only grows, and begins where it began. */
  pass(pages: SequencePages, range: PageRange): void {
    if (pages.passing.length === 0 || range.to <= range.from) return;
    const { entries } = pages.table;
    const to = Math.min(range.to, entries.length);
    for (let index = Math.max(range.from, pages.passed.to); index < to; index++) {
      const page = entries[index]!;
      this.#dropPassing(page);
      if (!pages.keepsPassed && this.#passedByAll.delete(page)) this.#pool.thin(page);
    }
    if (to > pages.passed.to) pages.passed = { from: range.from, to };
  }

  /**
   * Gives back pages in the middle that are read no more. From then on the sequence shares nothing new: a
   * path in the tree must be whole, and keeping it so would pin what is given back here.
   */
  releaseRange(pages: SequencePages, range: PageRange): void {
    if (range.to <= range.from) return;
    for (const page of pages.table.release(range)) this.#drop(page, true);
    this.#stopSharing(pages);
  }

  /** Ends a sequence: its shared pages stay known until they are evicted, the others are free. */
  release(pages: SequencePages): void {
    if (!this.#open.delete(pages)) throw new Error(`a sequence of ${pages.table.length} pages was released twice`);
    pages.table.entries.forEach((page, index) => {
      if (page >= 0) this.#drop(page, !isIn(pages.passed, index));
    });
    this.#stopSharing(pages);
  }

  /** Throws unless every page is free, cached or held by exactly those that list it. Slow: for tests and idle time. */
  checkIntegrity(): void {
    const holders = new Uint32Array(this.#pool.numIds);
    const passingHolders = new Uint32Array(this.#pool.numIds);
    const locks = new Map<PrefixNode, number>();
    for (const { table, cursor, passed } of this.#open) {
      table.entries.forEach((page, index) => {
        if (page < 0) return;
        holders[page]!++;
        if (!isIn(passed, index)) passingHolders[page]!++;
      });
      if (cursor !== null) locks.set(cursor, (locks.get(cursor) ?? 0) + 1);
    }
    const kept = new Set<number>();
    for (const node of this.#tree.nodes()) {
      check(!kept.has(node.page!), `page ${node.page} is in the tree twice`);
      kept.add(node.page!);
      check(node.locks === 0 || holders[node.page!]! > 0, `page ${node.page} is locked ${node.locks} times and held by nobody`);
      check(node.locks === (locks.get(node) ?? 0), `node of page ${node.page}: ${node.locks} locks, ${locks.get(node) ?? 0} cursors`);
      check(this.#tree.isIdle(node) === (node.locks === 0 && node.children.size === 0), `page ${node.page} is filed wrongly for eviction`);
    }
    this.#checkPages({ holders, passingHolders, kept });
  }

  #checkPages({ holders, passingHolders, kept }: { holders: Uint32Array; passingHolders: Uint32Array; kept: Set<number> }): void {
    const pool = this.#pool;
    let used = 0;
    let held = 0;
    holders.forEach((expected, page) => {
      check(pool.numHolders(page) === expected, `page ${page}: ${pool.numHolders(page)} holders, ${expected} tables`);
      check(pool.numPassingHolders(page) === passingHolders[page], `page ${page}: ${pool.numPassingHolders(page)} read all heads, ${passingHolders[page]} tables say so`);
      check(pool.isKept(page) === kept.has(page), `page ${page}: kept by the pool and by the tree differ`);
      used += pool.lastingRows(page) + pool.passingRows(page);
      if (expected > 0) held += pool.lastingRows(page);
      if (passingHolders[page]! > 0) held += pool.passingRows(page);
      const isIdle = kept.has(page) && pool.passingRows(page) > 0 && passingHolders[page] === 0;
      check(this.#passedByAll.has(page) === isIdle, `page ${page}: its rows of passing heads are ${isIdle ? 'not ' : ''}filed for eviction`);
      check(expected > 0 || kept.has(page) || pool.lastingRows(page) + pool.passingRows(page) === 0, `page ${page} is free and has rows`);
    });
    check(used === this.numRows - this.freeRows && held === pool.heldRows, `${this.freeRows} rows free and ${pool.heldRows} held, counted ${this.numRows - used} and ${held}`);
  }

  /** Where pages go only as a whole, heads that pass them make no difference. */
  #passingOf(heads: Int32Array): Int32Array {
    return this.#pool.rowsPerPage > 1 ? heads : NO_HEADS;
  }

  /** Leading pages of a match that end where the passing heads can read on: each page that they lack they have passed. */
  #readablePages({ pages, spanPages }: PrefixMatch, reading: Reading): number {
    const missing = pages.flatMap((page, index) => (this.#pool.passingRows(page) === 0 ? [index] : []));
    for (let length = pages.length; length > 0; length -= spanPages) {
      while (missing.length > 0 && missing.at(-1)! >= length) missing.pop();
      const passed = reading.passedPages(length * PAGE_TOKENS);
      if (missing.length === 0 || (isIn(passed, missing[0]!) && isIn(passed, missing.at(-1)!))) return length;
    }
    return 0;
  }

  /**
   * The table's copy of the node's page and the tree's become one. False if they cannot: the tree's, which others hold,
   * has lost rows that this sequence still reads.
   */
  #unite(pages: SequencePages, node: PrefixNode): boolean {
    const { table, numShared, passing, passed } = pages;
    const known = node.page!;
    const own = table.entries[numShared]!;
    const readsAll = !isIn(passed, numShared);
    if (readsAll && passing.length > 0 && this.#pool.passingRows(known) === 0) {
      if (this.#pool.numHolders(known) > 0) return false;
      node.page = own;
      this.#pool.keep(own);
      this.#pool.unkeep(known);
      return true;
    }
    this.#pool.hold(known);
    if (readsAll) this.#holdPassing(known);
    table.replace(numShared, known);
    this.#drop(own, readsAll);
    return true;
  }

  #holdPassing(page: number): void {
    this.#pool.holdPassing(page);
    this.#passedByAll.delete(page);
  }

  #dropPassing(page: number): void {
    this.#pool.dropPassing(page);
    const isIdle = this.#pool.isKept(page) && this.#pool.passingRows(page) > 0 && this.#pool.numPassingHolders(page) === 0;
    if (isIdle) this.#passedByAll.set(page, this.#tree.tick());
  }

  #drop(page: number, readsAll: boolean): void {
    if (readsAll) this.#dropPassing(page);
    this.#pool.drop(page);
  }

  /** Evicts until that many pages can be taken, the longest unused first. */
  #freeUp(numPages: number): boolean {
    const pool = this.#pool;
    const rows = numPages * pool.rowsPerPage;
    if (rows > pool.freeRows + pool.cachedRows || numPages > pool.numFreeIds + pool.numCachedIds) return false;
    while (pool.freeRows < rows || pool.numFreeIds < numPages) {
      if (!this.#evict()) return false;
    }
    return true;
  }

  /** A leaf of the tree, or the rows that passing heads have left behind in a page of it. */
  #evict(): boolean {
    const leaf = this.#tree.oldest();
    const [page, since] = this.#passedByAll.entries().next().value ?? [null, Infinity];
    if (page !== null && since < (leaf?.lastUsed ?? Infinity)) {
      this.#passedByAll.delete(page);
      this.#pool.thin(page);
      return true;
    }
    if (leaf === null) return false;
    this.#tree.evict(leaf);
    this.#passedByAll.delete(leaf.page!);
    this.#pool.unkeep(leaf.page!);
    return true;
  }

  #stopSharing(pages: SequencePages): void {
    if (pages.cursor === null) return;
    this.#tree.unlock(pages.cursor);
    pages.cursor = null;
  }
}

function isIn({ from, to }: PageRange, index: number): boolean {
  return index >= from && index < to;
}

function within({ from, to }: PageRange, length: number): PageRange {
  return { from: Math.min(from, length), to: Math.min(to, length) };
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}
