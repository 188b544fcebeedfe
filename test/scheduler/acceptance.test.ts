// What is learnt of how likely drafted tokens are to be accepted.
import { expect, test } from 'vitest';
import { Acceptance, TextAcceptance } from '../../scheduler/acceptance.ts';
import { SeededRandom } from '../seeded-random.ts';

const make = (...beliefs: number[]): Acceptance => new Acceptance({ beliefs, weight: 8, memory: 0.99 });
const teach = (acceptance: Pick<Acceptance, 'observe'>, sureness: number, share: number, times: number): void => {
  const random = new SeededRandom(1);
  for (let i = 0; i < times; i++) acceptance.observe(sureness, random.below(1000) < 1000 * share);
};

test('each class of sureness comes to the share that was accepted of it, and other classes learn nothing of it', () => {
  const acceptance = make(0.3, 0.9);
  teach(acceptance, 0, 0.7, 500);
  expect(acceptance.of(0)).toBeCloseTo(0.7, 0);
  expect(acceptance.of(1)).toBe(0.9);
});

test('what fades gives way to what was believed', () => {
  const acceptance = make(0.8);
  teach(acceptance, 0, 0, 200);
  const taught = acceptance.of(0);
  expect(taught).toBeLessThan(0.1);
  for (let i = 0; i < 100; i++) acceptance.fade(0.95);
  expect(acceptance.of(0)).toBeGreaterThan(0.7);
});

test('a text begins with what others taught, and moves all classes by what it shows itself', () => {
  const shared = make(0.3, 0.9);
  const text = new TextAcceptance(shared);
  expect([text.of(0), text.of(1)]).toEqual([expect.closeTo(0.3, 9), expect.closeTo(0.9, 9)]);
  teach(text, 0, 0, 12);
  expect(text.of(0)).toBeLessThan(0.15);
  expect(text.of(1)).toBeLessThan(0.85);
  expect(text.of(1)).toBeGreaterThan(0.5);
  const other = new TextAcceptance(shared);
  expect(other.of(1)).toBeGreaterThan(0.85);
});

test('a text that changes is followed within a few tokens, whatever it was before', () => {
  const shared = make(0.75);
  const text = new TextAcceptance(shared);
  teach(text, 0, 0, 300);
  teach(shared, 0, 0.75, 300);
  expect(text.of(0)).toBeLessThan(0.25);
  teach(text, 0, 1, 12);
  expect(text.of(0)).toBeGreaterThan(0.5);
});

test('no acceptance is certain', () => {
  const text = new TextAcceptance(make(0.97));
  teach(text, 0, 1, 1000);
  expect(text.of(0)).toBeLessThan(1);
  expect(text.of(0)).toBeGreaterThan(0.9);
});
