/**
 * The rows that selection picked last for each sequence, so that the next steps may read them again without
 * scoring. Knows no policy: when to reuse is the plan's word. Owned by onnx-engine.ts.
 */

interface Picks {
  readonly pick: number;
  /** [layers * kvHeads, pick]; heads that do not select keep zeros. */
  readonly rows: Int32Array;
}

export class PickedPages {
  readonly #numHeads: number;
  readonly #bySequence = new Map<number, Picks>();

  /** numHeads: layers * kvHeads. */
  constructor(numHeads: number) {
    this.#numHeads = numHeads;
  }

  has(sequenceId: number, pick: number): boolean {
    return this.#bySequence.get(sequenceId)?.pick === pick;
  }

  /** Rows of head layer * kvHeads + head. Throws if `has` is false for this number. [pick] */
  get(sequenceId: number, head: number, pick: number): Int32Array {
    const picks = this.#bySequence.get(sequenceId);
    if (picks?.pick !== pick) throw new RangeError(`sequence ${sequenceId} has ${picks?.pick ?? 0} picked pages, not ${pick}`);
    return picks.rows.subarray(head * pick, (head + 1) * pick);
  }

  set(sequenceId: number, head: number, rows: Int32Array): void {
    let picks = this.#bySequence.get(sequenceId);
    if (picks?.pick !== rows.length) {
      picks = { pick: rows.length, rows: new Int32Array(this.#numHeads * rows.length) };
      this.#bySequence.set(sequenceId, picks);
    }
    picks.rows.set(rows, head * rows.length);
  }

  forget(sequenceId: number): void {
    this.#bySequence.delete(sequenceId);
  }
}
