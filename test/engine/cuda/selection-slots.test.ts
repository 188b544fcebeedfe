// Which slot holds what a sequence picked, and what truncation, forgetting and little room do to it.
import { expect, test } from 'vitest';
import { MovedPages, type Move } from '../../../engine/cuda/moved-pages.ts';
import { SelectionSlots } from '../../../engine/cuda/selection-slots.ts';
import { SeededRandom } from '../../seeded-random.ts';

const idle: ReadonlySet<number> = new Set();

test('the last picks of a sequence are read again if they have the wanted shape', () => {
  const slots = new SelectionSlots(4);
  const first = slots.take(1, 100, '3', idle);
  const second = slots.take(1, 104, '3', idle);
  expect(first).not.toBe(second);
  expect(slots.recall(1, '3')).toBe(second);
  expect(slots.recall(1, '5')).toBeNull();
  expect(slots.recall(2, '3')).toBeNull();
});

test('a truncated sequence goes back to what it picked before', () => {
  const slots = new SelectionSlots(4);
  const first = slots.take(1, 100, '3', idle);
  slots.take(1, 104, '3', idle);
  slots.truncate(1, 104);
  expect(slots.recall(1, '3')).toBe(first);
  slots.truncate(1, 100);
  expect(slots.recall(1, '3')).toBeNull();
});

test('picking again at a position replaces what was picked there', () => {
  const slots = new SelectionSlots(2);
  for (let time = 0; time < 5; time++) slots.take(1, 100, '3', idle);
  slots.take(2, 7, '3', idle);
  expect(slots.recall(1, '3')).not.toBeNull();
  slots.forget(1);
  expect(slots.recall(1, '3')).toBeNull();
});

test('with little room old picks go first, then those of sequences that did not run for longest, never those in use', () => {
  const slots = new SelectionSlots(3);
  const old = slots.take(1, 100, '3', idle);
  const kept = slots.take(1, 104, '3', idle);
  const other = slots.take(2, 50, '3', idle);
  expect(slots.take(3, 9, '3', idle)).toBe(old);
  expect(slots.recall(1, '3')).toBe(kept);
  expect(slots.take(4, 9, '3', new Set([kept]))).toBe(other);
  expect(slots.recall(2, '3')).toBeNull();
  expect(() => slots.take(5, 9, '3', new Set([0, 1, 2]))).toThrow(/more than 3 chunks/);
});

/** Says what SelectionSlots does by going through one list of all picks. */
class PlainSlots {
  readonly #free: number[];
  #picks: { sequenceId: number; start: number; shape: string; slot: number }[] = [];

  constructor(numSlots: number) {
    this.#free = Array.from({ length: numSlots }, (_, i) => numSlots - 1 - i);
  }

  recall(sequenceId: number, shape: string): number | null {
    const last = this.#picks.findLast((picks) => picks.sequenceId === sequenceId);
    return last?.shape === shape ? last.slot : null;
  }

  take(sequenceId: number, start: number, shape: string, inUse: ReadonlySet<number>): number {
    this.truncate(sequenceId, start);
    const slot = this.#free.pop() ?? this.#evict(inUse);
    this.#picks.push({ sequenceId, start, shape, slot });
    return slot;
  }

  truncate(sequenceId: number, length: number): void {
    const isDropped = (picks: { sequenceId: number; start: number }) => picks.sequenceId === sequenceId && picks.start >= length;
    this.#free.push(...this.#picks.filter(isDropped).map(({ slot }) => slot));
    this.#picks = this.#picks.filter((picks) => !isDropped(picks));
  }

  #evict(inUse: ReadonlySet<number>): number {
    const last = new Map(this.#picks.map((picks) => [picks.sequenceId, picks]));
    const free = this.#picks.filter(({ slot }) => !inUse.has(slot));
    const victim = free.find((picks) => last.get(picks.sequenceId) !== picks) ?? free[0]!;
    this.#picks = this.#picks.filter((picks) => picks !== victim);
    return victim.slot;
  }
}

test('any order of picks, truncations and returns gives the slots that one list of all picks gives', () => {
  const random = new SeededRandom(1);
  for (const numSlots of [4, 9, 40]) {
    const [slots, plain] = [new SelectionSlots(numSlots), new PlainSlots(numSlots)];
    for (let step = 0; step < 3000; step++) {
      const sequenceId = random.below(6);
      const start = random.below(50);
      const shape = String(random.below(2));
      const inUse = new Set(Array.from({ length: random.below(3) }, () => random.below(numSlots)));
      const does = random.below(10);
      if (does < 6) expect(slots.take(sequenceId, start, shape, inUse)).toBe(plain.take(sequenceId, start, shape, inUse));
      else if (does < 8) for (const each of [slots, plain]) each.truncate(sequenceId, start);
      for (let id = 0; id < 6; id++) expect(slots.recall(id, shape)).toBe(plain.recall(id, shape));
    }
  }
});

test('a turned copy serves until its delta changes; one of an unfinished page serves one run', () => {
  const pages = new MovedPages(100, 3);
  const ask = (page: number, delta: number, isFull = true, sequenceId = 1) => {
    const moves: Move[] = [];
    const to = pages.get({ sequenceId, promptTokens: 10 }, { page, delta, isFull }, moves);
    return { to, copied: moves.length };
  };
  expect(ask(5, 0)).toEqual({ to: 5, copied: 0 });
  const first = ask(5, 64);
  expect(first.copied).toBe(1);
  pages.begin();
  expect(ask(5, 64)).toEqual({ to: first.to, copied: 0 });
  expect(ask(5, 128).copied).toBe(1);
  expect(ask(6, 64, false).copied).toBe(1);
  pages.begin();
  expect(ask(6, 64, false).copied).toBe(1);
  pages.truncate(1, new Set([5]));
  expect(ask(5, 128).copied).toBe(1);
  pages.forget(1);
  expect(ask(5, 128).copied).toBe(1);
});

test('the copy that was used least recently makes room, and more than there is room for in one run is refused', () => {
  const pages = new MovedPages(100, 2);
  const ask = (page: number, isFull = true) => pages.get({ sequenceId: 1, promptTokens: 10 }, { page, delta: 64, isFull }, []);
  const [a, b] = [ask(1), ask(2)];
  pages.begin();
  expect(ask(1)).toBe(a);
  expect(ask(3)).toBe(b);
  pages.begin();
  ask(4, false);
  ask(5, false);
  expect(() => ask(6, false)).toThrow(RangeError);
});
