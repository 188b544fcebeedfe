/**
 * Merges the symbols of one word by rank, the lowest first and the leftmost among equals. Knows ids and ranks,
 * no text. mergeShort scans and is quadratic with a tiny constant; mergeLong is n log n, for a megabyte without
 * a space. Called by byte-level-bpe.ts.
 */
import { NO_MERGE, type MergeTable } from './merge-table.ts';

/** Above this many symbols the heap is quicker. */
const SHORT_SYMBOLS = 64;

/** Merges the first `length` symbols in place; returns how many are left at the front. */
export function mergeSymbols(symbols: Int32Array, length: number, merges: MergeTable): number {
  return length <= SHORT_SYMBOLS ? mergeShort(symbols, length, merges) : mergeLong(symbols, length, merges);
}

export function mergeShort(symbols: Int32Array, length: number, merges: MergeTable): number {
  let left = length;
  while (left > 1) {
    let best = 0;
    let bestRank = NO_MERGE;
    for (let i = 0; i + 1 < left; i++) {
      const rank = merges.rankOf(symbols[i]!, symbols[i + 1]!);
      if (rank < bestRank) [best, bestRank] = [i, rank];
    }
    if (bestRank === NO_MERGE) break;
    symbols[best] = merges.mergedIds[bestRank]!;
    left--;
    for (let i = best + 1; i < left; i++) symbols[i] = symbols[i + 1]!;
  }
  return left;
}

/**
 * Symbols as a linked list, candidate merges in a heap ordered by (rank, position). A candidate is out of date
 * when the pair now at its position has another rank, so nothing needs to be deleted from the heap.
 */
export function mergeLong(symbols: Int32Array, length: number, merges: MergeTable): number {
  const next = new Int32Array(length).map((_, i) => i + 1); // length: none
  const previous = new Int32Array(length).map((_, i) => i - 1); // -1: none
  const merged = new Uint8Array(length); // swallowed by the symbol on its left
  const heap = new CandidateHeap(length);
  const rankAt = (i: number) => (next[i]! < length ? merges.rankOf(symbols[i]!, symbols[next[i]!]!) : NO_MERGE);
  const propose = (i: number) => {
    const rank = rankAt(i);
    if (rank !== NO_MERGE) heap.push(rank, i);
  };
  for (let i = 0; i < length; i++) propose(i);
  while (heap.pop()) {
    const { rank, position } = heap;
    if (merged[position] === 1 || rankAt(position) !== rank) continue;
    const right = next[position]!;
    symbols[position] = merges.mergedIds[rank]!;
    merged[right] = 1;
    next[position] = next[right]!;
    if (next[right]! < length) previous[next[right]!] = position;
    propose(position);
    if (previous[position]! >= 0) propose(previous[position]!);
  }
  let kept = 0;
  for (let i = 0; i < length; i = next[i]!) symbols[kept++] = symbols[i]!;
  return kept;
}

/** A binary min-heap of (rank, position) packed into one float64 each: ranks below 2^20, positions below 2^32. */
class CandidateHeap {
  /** The candidate that pop() took. */
  rank = NO_MERGE;
  position = 0;
  #keys: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  push(rank: number, position: number): void {
    if (this.#size === this.#keys.length) this.#grow();
    const keys = this.#keys;
    const key = rank * 2 ** 32 + position;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  /** Takes the least candidate into `rank` and `position`; false when there is none. */
  pop(): boolean {
    if (this.#size === 0) return false;
    const least = this.#keys[0]!;
    this.rank = Math.floor(least / 2 ** 32);
    this.position = least % 2 ** 32;
    this.#sink(this.#keys[--this.#size]!);
    return true;
  }

  /** Puts a key in at the top and lets it down to its place. */
  #sink(key: number): void {
    const keys = this.#keys;
    let at = 0;
    for (let child = 1; child < this.#size; child = 2 * at + 1) {
      if (child + 1 < this.#size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = key;
  }

  #grow(): void {
    const larger = new Float64Array(2 * this.#keys.length);
    larger.set(this.#keys);
    this.#keys = larger;
  }
}
