// Which slot holds what a sequence picked, and what truncation, forgetting and little room do to it.
import { expect, test } from 'vitest';
import { MovedPages, type Move } from '../../../engine/cuda/moved-pages.ts';
import { SelectionSlots } from '../../../engine/cuda/selection-slots.ts';

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

test('a turned copy serves until its delta changes; one of an unfinished page serves one run', () => {
  const pages = new MovedPages(100, 3);
  const ask = (page: number, delta: number, full = true, sequenceId = 1) => {
    const moves: Move[] = [];
    const to = pages.get({ sequenceId, promptTokens: 10, page, delta, full }, moves);
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
  const ask = (page: number, full = true) => pages.get({ sequenceId: 1, promptTokens: 10, page, delta: 64, full }, []);
  const [a, b] = [ask(1), ask(2)];
  pages.begin();
  expect(ask(1)).toBe(a);
  expect(ask(3)).toBe(b);
  pages.begin();
  ask(4, false);
  ask(5, false);
  expect(() => ask(6, false)).toThrow(RangeError);
});
