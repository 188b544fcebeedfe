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

/** What each slot holds, in the order in which it was taken: a list that slots are linked into. */
class SlotOrder {
  /** [slots] */
  readonly #picks: (Picks | null)[];
  /** Slots taken next after and just before each slot; the last entry stands for both ends. [slots + 1] */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(numSlots: number) {
    this.#picks = Array.from({ length: numSlots }, () => null);
    this.#next = new Int32Array(numSlots + 1).fill(numSlots);
    this.#previous = new Int32Array(numSlots + 1).fill(numSlots);
  }

  append(picks: Picks): void {
    const end = this.#picks.length;
    const { slot } = picks;
    this.#picks[slot] = picks;
    this.#link(this.#previous[end]!, slot);
    this.#link(slot, end);
  }

  remove({ slot }: Picks): void {
    this.#picks[slot] = null;
    this.#link(this.#previous[slot]!, this.#next[slot]!);
  }

  /** The first that suits; null where none does. */
  oldest(suits: (picks: Picks) => boolean): Picks | null {
    const end = this.#picks.length;
    for (let slot = this.#next[end]!; slot !== end; slot = this.#next[slot]!) {
      const picks = this.#picks[slot]!;
      if (suits(picks)) return picks;
    }
    return null;
  }

  #link(before: number, after: number): void {
    this.#next[before] = after;
    this.#previous[after] = before;
  }
}

export class SelectionSlots {
  readonly numSlots: number;
  readonly #free: number[];
  readonly #order: SlotOrder;
  /** Of each sequence, by `start`. */
  readonly #bySequence = new Map<number, Picks[]>();

  constructor(numSlots: number) {
    this.numSlots = numSlots;
    this.#order = new SlotOrder(numSlots);
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
    this.#order.append(picks);
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
      this.#order.remove(picks);
      this.#free.push(picks.slot);
    }
  }

  forget(sequenceId: number): void {
    this.truncate(sequenceId, 0);
  }

  /** The oldest that a later one of its sequence stands for; if there is none, the oldest: its sequence picks anew. */
  #evict(inUse: ReadonlySet<number>): number {
    const victim = this.#order.oldest((picks) => !inUse.has(picks.slot) && this.#bySequence.get(picks.sequenceId)!.at(-1) !== picks)
      ?? this.#order.oldest(({ slot }) => !inUse.has(slot));
    if (victim === null) throw new RangeError(`a run picks pages for more than ${this.numSlots} chunks`);
    this.#order.remove(victim);
    const ofSequence = this.#bySequence.get(victim.sequenceId)!;
    ofSequence.splice(ofSequence.indexOf(victim), 1);
    if (ofSequence.length === 0) this.#bySequence.delete(victim.sequenceId);
    return victim.slot;
  }
}
