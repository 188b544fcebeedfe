/**
 * The rows that selection picked for each sequence, so that the next steps may read them again without
 * scoring. Earlier picks are kept for a while: a text that is truncated goes back to them. Knows no policy:
 * when to reuse is the plan's word. Owned by onnx-engine.ts.
 */

interface Picks {
  /** Position at which they were picked. */
  readonly start: number;
  readonly pick: number;
  /** One row of numbers for each list: of KV heads, or of query heads. [lists of all layers, pick]; those that do not select keep zeros. */
  readonly rows: Int32Array;
}

/** More than a text is ever truncated by: past that, pages are picked anew. */
const MAX_KEPT = 32;

export class PickedPages {
  /** By sequence, in order of position; the last are those in use. */
  readonly #bySequence = new Map<number, Picks[]>();

  has(sequenceId: number, pick: number): boolean {
    return this.#last(sequenceId)?.pick === pick;
  }

  /** Rows that the list picked. Throws if `has` is false for this number. [pick] */
  get(sequenceId: number, list: number, pick: number): Int32Array {
    const picks = this.#last(sequenceId);
    if (picks?.pick !== pick) throw new RangeError(`sequence ${sequenceId} has ${picks?.pick ?? 0} picked pages, not ${pick}`);
    return picks.rows.subarray(list * pick, (list + 1) * pick);
  }

  /** numLists: of all layers. */
  set({ sequenceId, start, numLists }: { sequenceId: number; start: number; numLists: number }, list: number, rows: Int32Array): void {
    let picks = this.#last(sequenceId);
    if (picks?.start !== start || picks.pick !== rows.length) {
      picks = { start, pick: rows.length, rows: new Int32Array(numLists * rows.length) };
      this.truncate(sequenceId, start);
      this.#bySequence.set(sequenceId, [...(this.#bySequence.get(sequenceId) ?? []), picks].slice(-MAX_KEPT));
    }
    picks.rows.set(rows, list * rows.length);
  }

  /** Forgets what was picked at position `length` or later. */
  truncate(sequenceId: number, length: number): void {
    const picks = this.#bySequence.get(sequenceId);
    while (picks !== undefined && picks.length > 0 && picks.at(-1)!.start >= length) picks.pop();
  }

  forget(sequenceId: number): void {
    this.#bySequence.delete(sequenceId);
  }

  #last(sequenceId: number): Picks | undefined {
    return this.#bySequence.get(sequenceId)?.at(-1);
  }
}
