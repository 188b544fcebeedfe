/**
 * The merges of a BPE model as a hash table over pairs of token ids. Knows ids only. Built by byte-level-bpe.ts
 * at load, read by bpe-merge.ts for every pair of neighbours, so it is flat and open-addressed.
 */

/** The rank of a pair that never merges: worse than any other. */
export const NO_MERGE = 0x7fffffff;

export class MergeTable {
  /** rank -> the id that its pair becomes. [merges] */
  readonly mergedIds: Int32Array;
  /** left, right, rank of each slot; a slot whose rank is NO_MERGE is empty. [3 * slots] */
  readonly #slots: Int32Array;
  readonly #mask: number;

  /** `pairs`: left, right and merged id of each merge, by rank. Of two equal pairs the later rank holds. [3 * merges] */
  constructor(pairs: Int32Array) {
    const numMerges = pairs.length / 3;
    const numSlots = 2 ** Math.ceil(Math.log2(2 * numMerges + 2));
    this.#mask = numSlots - 1;
    this.#slots = new Int32Array(3 * numSlots).fill(NO_MERGE);
    this.mergedIds = new Int32Array(numMerges);
    for (let rank = 0; rank < numMerges; rank++) {
      this.#insert(pairs[3 * rank]!, pairs[3 * rank + 1]!, rank);
      this.mergedIds[rank] = pairs[3 * rank + 2]!;
    }
  }

  /** The rank of a pair, or NO_MERGE. */
  rankOf(left: number, right: number): number {
    return this.#slots[this.#slotOf(left, right) + 2]!;
  }

  #insert(left: number, right: number, rank: number): void {
    this.#slots.set([left, right, rank], this.#slotOf(left, right));
  }

  /** Where the pair is, or the empty slot where it would be. */
  #slotOf(left: number, right: number): number {
    const slots = this.#slots;
    const hash = Math.imul(left, 0x9e3779b1) + Math.imul(right, 0x85ebca6b);
    for (let slot = (hash ^ (hash >>> 15)) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 3 * slot;
      if (slots[at + 2] === NO_MERGE || (slots[at] === left && slots[at + 1] === right)) return at;
    }
  }
}
