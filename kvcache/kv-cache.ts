/**
 * The face of this folder: a sequence is matched against known prefixes, opened, given pages as it grows,
 * shares its full pages, and is released. Page ids only; the bytes behind them belong to the engine.
 * Called by the scheduler.
 */
import { PAGE_TOKENS } from './page-lists/page-list.ts';
import { pagesFor } from './page-lists/lists.ts';
import { PagePool } from './page-pool.ts';
import { PageTable } from './page-table.ts';
import { PrefixTree, type PrefixMatch, type PrefixNode } from './prefix-tree.ts';

/** What one sequence has in the cache, from `open` to `release`. */
export interface SequencePages {
  readonly table: PageTable;
  /** Pages that are computed, and shared, as one. */
  readonly spanPages: number;
  /** Leading pages that are the prefix tree's. */
  numShared: number;
  /** Where they end in the tree, locked; null once nothing more is shared. */
  cursor: PrefixNode | null;
}

export class KvCache {
  readonly #pool: PagePool;
  readonly #tree = new PrefixTree();
  readonly #open = new Set<SequencePages>();

  constructor(numPages: number) {
    this.#pool = new PagePool(numPages);
  }

  get numPages(): number {
    return this.#pool.numPages;
  }

  get numFree(): number {
    return this.#pool.numFree;
  }

  get numHeld(): number {
    return this.#pool.numHeld;
  }

  /** Pages that only the prefix cache keeps. */
  get numCached(): number {
    return this.#pool.numKeptOnly;
  }

  /**
   * The longest known prefix of `tokens` within a namespace, in whole spans, and never all of it: the last
   * token is always computed, for its logits. Changes nothing; open it before anything else changes.
   */
  match(namespace: string, tokens: Int32Array, spanTokens: number): PrefixMatch {
    return this.#tree.match(namespace, tokens.subarray(0, tokens.length - 1), spanTokens / PAGE_TOKENS);
  }

  /** Pages that would be left for others to take after opening `match`: what the tree has locked is held, all else can be evicted. */
  numAvailableAfter(match: PrefixMatch): number {
    const numAwakened = match.pages.reduce((sum, page) => sum + (this.#pool.numHolders(page) === 0 ? 1 : 0), 0);
    return this.#pool.numFree + this.#pool.numKeptOnly - numAwakened;
  }

  /** Begins a sequence with a match's pages. */
  open(match: PrefixMatch): SequencePages {
    const { spanPages } = match;
    const pages: SequencePages = { table: new PageTable(), spanPages, numShared: match.pages.length, cursor: this.#tree.lock(match) };
    for (const page of match.pages) {
      this.#pool.hold(page);
      pages.table.push(page);
    }
    this.#open.add(pages);
    return pages;
  }

  /** Gives the table pages for `tokens` positions, evicting prefixes if it must. False, and nothing taken, if there are too few. */
  reserve(pages: SequencePages, tokens: number): boolean {
    const numMissing = pagesFor(tokens) - pages.table.length;
    if (!this.#freeUp(numMissing)) return false;
    for (let i = 0; i < numMissing; i++) pages.table.push(this.#pool.take()!);
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
      if (isKept) this.#pool.keep(page);
      else this.#replace(pages, node.page!);
      pages.cursor = node;
    }
  }

  #replace({ table, numShared }: SequencePages, known: number): void {
    this.#pool.hold(known);
    this.#pool.drop(table.replace(numShared, known));
  }

  /**
   * Gives back pages in the middle that are read no more. From then on the sequence shares nothing new: a
   * path in the tree must be whole, and keeping it so would pin what is given back here.
   */
  releaseRange(pages: SequencePages, range: { from: number; to: number }): void {
    if (range.to <= range.from) return;
    for (const page of pages.table.release(range)) this.#pool.drop(page);
    this.#stopSharing(pages);
  }

  /** Ends a sequence: its shared pages stay known until they are evicted, the others are free. */
  release(pages: SequencePages): void {
    if (!this.#open.delete(pages)) throw new Error(`a sequence of ${pages.table.length} pages was released twice`);
    for (const page of pages.table.heldPages()) this.#pool.drop(page);
    this.#stopSharing(pages);
  }

  /** Throws unless every page is free, cached or held by exactly those that list it. Slow: for tests and idle time. */
  checkIntegrity(): void {
    const holders = new Uint32Array(this.numPages);
    const locks = new Map<PrefixNode, number>();
    for (const { table, cursor } of this.#open) {
      for (const page of table.heldPages()) holders[page]!++;
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
    this.#checkPages(holders, kept);
  }

  #checkPages(holders: Uint32Array, kept: Set<number>): void {
    let numFree = 0;
    let numHeld = 0;
    holders.forEach((expected, page) => {
      check(this.#pool.numHolders(page) === expected, `page ${page}: ${this.#pool.numHolders(page)} holders, ${expected} tables`);
      check(this.#pool.isKept(page) === kept.has(page), `page ${page}: kept by the pool and by the tree differ`);
      if (expected > 0) numHeld++;
      else if (!kept.has(page)) numFree++;
    });
    check(numFree === this.numFree && numHeld === this.numHeld, `${this.numFree} free and ${this.numHeld} held, counted ${numFree} and ${numHeld}`);
  }

  #freeUp(numPages: number): boolean {
    if (numPages > this.numFree + this.numCached) return false;
    while (this.numFree < numPages) {
      const page = this.#tree.evict();
      if (page === null) return false;
      this.#pool.unkeep(page);
    }
    return true;
  }

  #stopSharing(pages: SequencePages): void {
    if (pages.cursor === null) return;
    this.#tree.unlock(pages.cursor);
    pages.cursor = null;
  }
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}
