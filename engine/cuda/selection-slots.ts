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
  readonly #picks = new Set<Picks>();
  /** Of each sequence, by `start`. */
  readonly #bySequence = new Map<number, Picks[]>();

  constructor(numSlots: number) {
    this.numSlots = numSlots;
    this.#free = Array.from({ length: numSlots }, (_, i) => numSlots - 1 - i);
  }

  /** The slot of the last picks of a sequence, if they have this shape; null else. */
  recall(sequenceId: number, shape: string): number | null {
    const last = this.#bySequence.get(sequenceId)?.at(-1);
    return last?.shape === shape ? last.slot : null;
  }

  /** A slot for picks at `start`; those from there on are dropped. `inUse`: slots that this run reads or writes. */
  take(sequenceId: number, start: number, shape: string, inUse: ReadonlySet<number>): number {
    this.truncate(sequenceId, start);
    const slot = this.#free.pop() ?? this.#evict(inUse);
    const picks = { sequenceId, start, shape, slot };
    this.#picks.add(picks);
    const others = this.#bySequence.get(sequenceId);
    if (others === undefined) this.#bySequence.set(sequenceId, [picks]);
    else others.push(picks);
    return slot;
  }

  /** Forgets what was picked at `length` or later. */
  truncate(sequenceId: number, length: number): void {
    const ofSequence = this.#bySequence.get(sequenceId);
    if (ofSequence === undefined || ofSequence.at(-1)!.start < length) return;
    const dropped = ofSequence.splice(ofSequence.findIndex(({ start }) => start >= length));
    if (ofSequence.length === 0) this.#bySequence.delete(sequenceId);
    for (const picks of dropped) {
      this.#picks.delete(picks);
      this.#free.push(picks.slot);
    }
  }

  forget(sequenceId: number): void {
    this.truncate(sequenceId, 0);
  }

  /** The oldest that a later one of its sequence stands for; if there is none, the oldest: its sequence picks anew. */
  #evict(inUse: ReadonlySet<number>): number {
    const victim = this.#oldest((picks) => !inUse.has(picks.slot) && this.#bySequence.get(picks.sequenceId)!.at(-1) !== picks)
      ?? this.#oldest(({ slot }) => !inUse.has(slot));
    if (victim === null) throw new RangeError(`a run picks pages for more than ${this.numSlots} chunks`);
    this.#picks.delete(victim);
    const ofSequence = this.#bySequence.get(victim.sequenceId)!;
    ofSequence.splice(ofSequence.indexOf(victim), 1);
    if (ofSequence.length === 0) this.#bySequence.delete(victim.sequenceId);
    return victim.slot;
  }

  #oldest(suits: (picks: Picks) => boolean): Picks | null {
    for (const picks of this.#picks) if (suits(picks)) return picks;
    return null;
  }
}
