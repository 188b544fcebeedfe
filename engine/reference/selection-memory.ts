/**
 * The pages that decode steps picked for each sequence, layer and KV head, for plans that reuse a selection.
 * Those of earlier steps are kept too: a text that is truncated goes back to them. Knows page ids only. Used
 * by attention.ts and reference-engine.ts.
 */

interface Selection {
  /** Position at which the pages were picked. */
  readonly start: number;
  /** By layer * kvHeads + head. */
  readonly pages: Map<number, readonly number[]>;
}

export class SelectionMemory {
  /** By sequence; by position, the last one first. */
  readonly #selections = new Map<number, Selection[]>();

  /** null unless `pick` pages are remembered. */
  recall(sequenceId: number, kvHead: number, pick: number): readonly number[] | null {
    const pages = this.#selections.get(sequenceId)?.at(-1)?.pages.get(kvHead);
    return pages?.length === pick ? pages : null;
  }

  remember({ sequenceId, start }: { sequenceId: number; start: number }, kvHead: number, pages: readonly number[]): void {
    const selections = this.#before(sequenceId, start + 1);
    if (selections.at(-1)?.start !== start) selections.push({ start, pages: new Map() });
    selections.at(-1)!.pages.set(kvHead, pages);
    this.#selections.set(sequenceId, selections);
  }

  /** Forgets what was picked at `length` or later. */
  truncate(sequenceId: number, length: number): void {
    this.#selections.set(sequenceId, this.#before(sequenceId, length));
  }

  forget(sequenceId: number): void {
    this.#selections.delete(sequenceId);
  }

  #before(sequenceId: number, position: number): Selection[] {
    return (this.#selections.get(sequenceId) ?? []).filter(({ start }) => start < position);
  }
}
