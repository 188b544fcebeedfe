/**
 * Which text each kept page holds: a radix tree whose edges are pages of 64 tokens, with one root per
 * namespace. A node's page holds the keys and values of its 64 tokens as computed after all tokens on the
 * way from the root. Where a span of several pages is computed as one (its queries select together), each of
 * its pages depends on all its tokens, so all of them are in the key of each.
 * Eviction takes leaves only, so a lock on one node protects the whole path to it. Knows no pool and no
 * sequence. Called by kv-cache.ts.
 */
import { PAGE_TOKENS } from './page-lists/page-list.ts';

export interface PrefixNode {
  /** null for a root. */
  readonly parent: PrefixNode | null;
  /** The tokens of the page's span as a string; a root's namespace. */
  readonly key: string;
  /** null for a root. */
  page: number | null;
  readonly children: Map<string, PrefixNode>;
  locks: number;
  /** Time, counted in uses of the tree. */
  lastUsed: number;
}

export interface PrefixMatch {
  readonly namespace: string;
  /** Pages that are computed as one; a namespace has one value. */
  readonly spanPages: number;
  /** Deepest node of the match; null when the namespace is empty. */
  readonly node: PrefixNode | null;
  /** Pages of the matched prefix, in order. */
  readonly pages: readonly number[];
}

export class PrefixTree {
  readonly #roots = new Map<string, PrefixNode>();
  /** Unlocked leaves: what may be evicted. */
  readonly #idle = new Set<PrefixNode>();
  #uses = 0;

  /** The longest run of whole spans that `tokens` begins with. Changes nothing. */
  match(namespace: string, tokens: Int32Array, spanPages: number): PrefixMatch {
    let node = this.#roots.get(namespace) ?? null;
    const pages: number[] = [];
    const maxPages = Math.floor(tokens.length / (spanPages * PAGE_TOKENS)) * spanPages;
    while (node !== null && pages.length < maxPages) {
      const child = node.children.get(pageKey(tokens, pages.length, spanPages));
      if (child === undefined) break;
      pages.push(child.page!);
      node = child;
    }
    // The end of a span may have been evicted.
    for (; node !== null && pages.length % spanPages !== 0; node = node.parent) pages.pop();
    return { namespace, spanPages, node, pages };
  }

  /** The first `numPages` pages of a match. */
  shorten({ node, pages, ...match }: PrefixMatch, numPages: number): PrefixMatch {
    let end = node;
    for (let length = pages.length; length > numPages; length--) end = end!.parent;
    return { ...match, node: end, pages: pages.slice(0, numPages) };
  }

  /** Protects the path to a match, or the (perhaps new) root of its namespace, until `unlock`. */
  lock(match: PrefixMatch): PrefixNode {
    const node = match.node ?? newNode(null, match.namespace, null);
    if (node.parent === null) this.#roots.set(node.key, node);
    node.locks++;
    this.#touch(node);
    return node;
  }

  unlock(node: PrefixNode): void {
    if (node.locks === 0) throw new Error(`node of page ${node.page} has 0 locks, expected at least 1`);
    node.locks--;
    this.#touch(node);
  }

  /**
   * Moves a lock from `node` to its child for page `index` of `tokens`, which is made from `page` if it
   * does not exist. `isKept` tells whether the tree now keeps `page`: if another sequence computed the
   * same page before, the tree keeps that one.
   */
  extend(node: PrefixNode, tokens: Int32Array, at: { index: number; page: number; spanPages: number }): { node: PrefixNode; isKept: boolean } {
    const key = pageKey(tokens, at.index, at.spanPages);
    const known = node.children.get(key);
    const child = known ?? newNode(node, key, at.page);
    node.children.set(key, child);
    child.locks++;
    this.#touch(child);
    this.unlock(node);
    return { node: child, isKept: known === undefined };
  }

  /** The least recently used unlocked leaf; null if there is none. */
  oldest(): PrefixNode | null {
    let oldest: PrefixNode | null = null;
    for (const node of this.#idle) {
      if (oldest === null || node.lastUsed < oldest.lastUsed) oldest = node;
    }
    return oldest;
  }

  /** Removes an unlocked leaf. */
  evict(node: PrefixNode): void {
    if (!this.isIdle(node)) throw new Error(`node of page ${node.page} is locked or has children, expected an idle leaf`);
    this.#remove(node);
  }

  /** The time now, later than all before. */
  tick(): number {
    return ++this.#uses;
  }

  /** Every node that has a page, parents first; for integrity checks. */
  *nodes(): Generator<PrefixNode> {
    const stack = [...this.#roots.values()];
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      if (node.page !== null) yield node;
      stack.push(...node.children.values());
    }
  }

  isIdle(node: PrefixNode): boolean {
    return this.#idle.has(node);
  }

  #touch(node: PrefixNode): void {
    node.lastUsed = this.tick();
    this.#settle(node);
  }

  /** A node was used whenever one below it was. */
  #remove(node: PrefixNode): void {
    const parent = node.parent!;
    parent.children.delete(node.key);
    parent.lastUsed = Math.max(parent.lastUsed, node.lastUsed);
    this.#idle.delete(node);
    this.#settle(parent);
  }

  /** Files a node by what it has become; an unused root goes, so that salts leave nothing behind. */
  #settle(node: PrefixNode): void {
    const isIdle = node.locks === 0 && node.children.size === 0;
    if (node.parent === null && isIdle) this.#roots.delete(node.key);
    else if (isIdle) this.#idle.add(node);
    else this.#idle.delete(node);
  }
}

function newNode(parent: PrefixNode | null, key: string, page: number | null): PrefixNode {
  return { parent, key, page, children: new Map(), locks: 0, lastUsed: 0 };
}

/** The bytes of a span's token ids as a one-byte string: hashed and compared natively. */
function pageKey(tokens: Int32Array, index: number, spanPages: number): string {
  const pageBytes = PAGE_TOKENS * Int32Array.BYTES_PER_ELEMENT;
  const first = index - (index % spanPages);
  return Buffer.from(tokens.buffer, tokens.byteOffset + first * pageBytes, spanPages * pageBytes).toString('latin1');
}
