/**
 * Which slots of the device's selection memory hold the pages that a sequence picked, and where in its text. The
 * picks themselves never leave the device. Earlier ones are kept for a while: a text that is truncated goes back
 * to them. Knows no policy. Owned by cuda-engine.ts.
 */

interface Picks {
  readonly sequenceId: number;
  /** Position at which they were picked. */
  readonly start: number;
  /** How many pages each class of the plan picked, and by whom: only picks of one shape can be read again. */
  readonly shape: string;
  readonly slot: number;
}

export class SelectionSlots {
  readonly numSlots: number;
  readonly #free: number[];
  /** The oldest first. */
  #picks: Picks[] = [];

  constructor(numSlots: number) {
    this.numSlots = numSlots;
    this.#free = Array.from({ length: numSlots }, (_, i) => numSlots - 1 - i);
  }

  /** The slot of the last picks of a sequence, if they have this shape; null else. */
  recall(sequenceId: number, shape: string): number | null {
    const last = this.#picks.findLast((picks) => picks.sequenceId === sequenceId);
    return last?.shape === shape ? last.slot : null;
  }

  /** A slot for picks at `start`; those from there on are dropped. `inUse`: slots that this run reads or writes. */
  take(sequenceId: number, start: number, shape: string, inUse: ReadonlySet<number>): number {
    this.truncate(sequenceId, start);
    const slot = this.#free.pop() ?? this.#evict(inUse);
    this.#picks.push({ sequenceId, start, shape, slot });
    return slot;
  }

  /** Forgets what was picked at `length` or later. */
  truncate(sequenceId: number, length: number): void {
    this.#drop((picks) => picks.sequenceId === sequenceId && picks.start >= length);
  }

  forget(sequenceId: number): void {
    this.truncate(sequenceId, 0);
  }

  #drop(isDropped: (picks: Picks) => boolean): void {
    for (const picks of this.#picks) if (isDropped(picks)) this.#free.push(picks.slot);
    this.#picks = this.#picks.filter((picks) => !isDropped(picks));
  }

  /** The oldest that a later one of its sequence stands for; if there is none, the oldest: its sequence picks anew. */
  #evict(inUse: ReadonlySet<number>): number {
    const last = new Map(this.#picks.map((picks) => [picks.sequenceId, picks]));
    const idle = this.#picks.filter(({ slot }) => !inUse.has(slot));
    const victim = idle.find((picks) => last.get(picks.sequenceId) !== picks) ?? idle[0];
    if (victim === undefined) throw new RangeError(`a run picks pages for more than ${this.numSlots} chunks`);
    this.#picks = this.#picks.filter((picks) => picks !== victim);
    return victim.slot;
  }
}
