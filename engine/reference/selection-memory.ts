/**
 * The pages that the last decode step picked for each sequence, layer and KV head, for plans that reuse a
 * selection. Knows page ids only. Used by attention.ts.
 */

export class SelectionMemory {
  /** By sequence, then by layer * kvHeads + head. */
  readonly #picked = new Map<number, Map<number, readonly number[]>>();

  /** null unless `pick` pages are remembered. */
  recall(sequenceId: number, kvHead: number, pick: number): readonly number[] | null {
    const pages = this.#picked.get(sequenceId)?.get(kvHead);
    return pages?.length === pick ? pages : null;
  }

  remember(sequenceId: number, kvHead: number, pages: readonly number[]): void {
    const heads = this.#picked.get(sequenceId) ?? new Map<number, readonly number[]>();
    this.#picked.set(sequenceId, heads.set(kvHead, pages));
  }

  forget(sequenceId: number): void {
    this.#picked.delete(sequenceId);
  }
}
