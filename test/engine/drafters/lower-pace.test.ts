import { expect, test } from 'vitest';
import { LowerPace } from '../../../engine/drafters/lower-pace.ts';

/** Tokens and ms of a pass: the lower drafter asked, and not. */
interface Passes {
  readonly asked: readonly [number, number];
  readonly alone: readonly [number, number];
}

/** Share of so many passes of `texts` texts before which the lower drafter was asked. */
function shareAsked(pace: LowerPace, { asked, alone }: Passes, passes: number, texts = 1): number {
  let numAsked = 0;
  for (let i = 0; i < passes; i++) {
    const asks = pace.asks(texts);
    const [tokens, ms] = asks ? asked : alone;
    pace.observe({ texts, asked: asks, tokens, ms });
    if (asks) numAsked++;
  }
  return numAsked / passes;
}

const PAYS: Passes = { asked: [2.1, 3], alone: [1, 2] };
const LOSES: Passes = { asked: [1.2, 3], alone: [1, 2] };

test('asks where that gives more tokens a millisecond, and hardly anywhere else', () => {
  expect(shareAsked(new LowerPace(), PAYS, 500)).toBeGreaterThan(0.93);
  expect(shareAsked(new LowerPace(), LOSES, 500)).toBeLessThan(0.07);
});

test('what has changed is found out', () => {
  const pace = new LowerPace();
  shareAsked(pace, LOSES, 500);
  shareAsked(pace, PAYS, 1500);
  expect(shareAsked(pace, PAYS, 200)).toBeGreaterThan(0.9);
  shareAsked(pace, LOSES, 100);
  expect(shareAsked(pace, LOSES, 200)).toBeLessThan(0.1);
});

test('several texts in a pass are compared on their own', () => {
  const pace = new LowerPace();
  expect(shareAsked(pace, PAYS, 200, 1)).toBeGreaterThan(0.9);
  expect(shareAsked(pace, LOSES, 200, 4)).toBeLessThan(0.1);
  expect(shareAsked(pace, PAYS, 200, 1)).toBeGreaterThan(0.9);
});
