// How much to draft against trying everything, and what a drafter's time teaches.
import { describe, expect, test } from 'vitest';
import { emptyDraft, type Draft } from '../../engine/drafters/drafter.ts';
import { draftLengths, expectedTokens, leastReach, savedMs, type Draftable } from '../../scheduler/draft-lengths.ts';
import { DrafterExperience } from '../../scheduler/drafter-experience.ts';
import type { Costs } from '../../scheduler/pass-costs.ts';
import { SeededRandom } from '../seeded-random.ts';

const random = new SeededRandom(11);
const share = (): number => random.below(1000) / 1000;
const anyCosts = (): Costs => ({ plain: 1 + 20 * share(), perPass: share() - 0.2, perToken: 2 * share() });
const anySequence = (): Draftable => ({ acceptances: Array.from({ length: random.below(9) }, () => 0.98 * share() ** 0.3), draftMs: share() });

/** Tokens a millisecond of a step, as the definition says. */
function rateOf(sequences: readonly Draftable[], costs: Costs, lengths: readonly number[]): number {
  let ms = costs.plain;
  let tokens = 0;
  sequences.forEach(({ acceptances, draftMs }, i) => {
    const length = lengths[i]!;
    if (length > 0) ms += Math.max(0, costs.perPass + costs.perToken * length) + draftMs * length;
    tokens += expectedTokens(acceptances, length);
  });
  return tokens / ms;
}

describe('lengths', () => {
  test('give as many tokens a millisecond as the best of all, for two sequences together', () => {
    for (let i = 0; i < 300; i++) {
      const [costs, sequences] = [anyCosts(), [anySequence(), anySequence()]];
      const { lengths, rate } = draftLengths(sequences, costs);
      const all = sequences.map(({ acceptances }) => Array.from({ length: acceptances.length + 1 }, (_, length) => length));
      const best = Math.max(...all[0]!.flatMap((a) => all[1]!.map((b) => rateOf(sequences, costs, [a, b]))));
      expect(rateOf(sequences, costs, lengths)).toBeGreaterThan(0.999 * best);
      expect(rate).toBeCloseTo(rateOf(sequences, costs, lengths), 9);
    }
  });

  test('expect the tokens that drawing them gives', () => {
    const acceptances = [0.9, 0.5, 0.8];
    const times = 20_000;
    let sum = 0;
    for (let i = 0; i < times; i++) {
      const refused = acceptances.findIndex((each) => share() >= each);
      sum += 1 + (refused < 0 ? acceptances.length : refused);
    }
    expect(sum / times).toBeCloseTo(expectedTokens(acceptances, 3), 1);
  });

  test('save nothing where a draft costs what it gives', () => {
    const costs = { plain: 10, perPass: 0, perToken: 5 };
    expect(savedMs({ acceptances: [0.5], draftMs: 0 }, costs, 1)).toBeCloseTo(0, 9);
    expect(savedMs({ acceptances: [0.9], draftMs: 0 }, costs, 1)).toBeGreaterThan(1);
  });

  test('go on as long as another token is likely enough to be reached to be worth its time', () => {
    const costs = { plain: 10, perPass: 0, perToken: 1 };
    expect(leastReach({ acceptances: [0.8], draftMs: 1 }, costs, 0.2)).toBeCloseTo(0.5, 9);
    expect(leastReach({ acceptances: [0.8], draftMs: 100 }, costs, 0.2)).toBe(1);
  });
});

describe('what a drafter costs', () => {
  const draft = (tokens: number, readTokens: number): Draft => ({ ...emptyDraft(''), tokens: new Int32Array(tokens), readTokens });

  test('is learnt apart for tokens that it drafts and tokens that it reads', () => {
    const experience = new DrafterExperience({ firstAcceptances: [0.5] });
    expect([experience.draftMs, experience.readMs]).toEqual([null, null]);
    experience.observe([draft(0, 512)], 51.2);
    expect([experience.draftMs, experience.readMs]).toEqual([null, expect.closeTo(0.1, 9)]);
    experience.observe([draft(4, 3), draft(4, 2)], 16);
    expect(experience.draftMs).toBeCloseTo(2, 9);
    experience.observe([draft(4, 512)], 8 + 102.4);
    expect(experience.draftMs).toBeCloseTo(2, 9);
    expect(experience.readMs).toBeCloseTo(0.12, 9);
  });

  test('is no news of a step that drafted and read nothing', () => {
    const experience = new DrafterExperience({ firstAcceptances: [0.5] });
    experience.observe([draft(0, 0)], 5);
    expect([experience.draftMs, experience.readMs]).toEqual([null, null]);
  });

  test('and what it is worth is told to the next text, apart for greedy and drawn ones', () => {
    const experience = new DrafterExperience({ firstAcceptances: [0.5, 0.9] });
    const [bySureness, ofAll] = experience.acceptancesFor(0);
    for (let i = 0; i < 60; i++) for (const text of [bySureness, ofAll]) text.observe(0, false);
    expect(experience.acceptancesFor(0).map((text) => text.of(0) < 0.2)).toEqual([true, true]);
    expect(experience.acceptancesFor(0)[0].of(1)).toBeCloseTo(0.9, 9);
    expect(experience.acceptancesFor(0.7)[0].of(0)).toBeCloseTo(0.5, 9);
  });
});
