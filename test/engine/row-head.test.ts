// A sampler that is given the head of a row does what it does with the row: the same tokens with the same seed, the same
// distributions and log-probabilities, and it asks for the row where the head does not tell.
import { describe, expect, test } from 'vitest';
import { HEAD_TOKENS } from '../../engine/logit-row.ts';
import { scoreToken } from '../../engine/logprobs.ts';
import { newSamplerScratch, Sampler, type SamplerContext, type SamplerSettings } from '../../engine/sampler.ts';
import { drawDraft, verify } from '../../engine/verify.ts';
import { SeededRandom } from '../seeded-random.ts';
import { headOf } from './head-of.ts';

const VOCAB = 4000;
const off: SamplerSettings = {
  temperature: 1, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [],
};
const scratch = newSamplerScratch(VOCAB);

function sampler(settings: Partial<SamplerSettings>, context: Partial<SamplerContext> = {}): Sampler {
  return new Sampler({ ...off, ...settings }, { seed: 1, promptIds: new Int32Array(0), stopTokenIds: [], minTokens: 0, reproducible: false, scratch, ...context });
}

/** Quarters, so that logits are often equal, at the edge of the head too. */
function rowOf(random: SeededRandom, spread = 3): Float32Array {
  return Float32Array.from({ length: VOCAB }, () => Math.round(random.normal() * spread * 4) / 4);
}

function forbidden(): never {
  throw new Error('the head tells enough');
}

/** Whether the head alone is to be enough for every row. */
const cases: [string, Partial<SamplerSettings>, boolean, Partial<SamplerContext>?][] = [
  ['greedy', { temperature: 0 }, true],
  ['greedy with penalties', { temperature: 0, presencePenalty: 0.5, frequencyPenalty: 0.3, repetitionPenalty: 1.3 }, true],
  ['greedy with stop tokens masked', { temperature: 0 }, true, { stopTokenIds: [5, 17], minTokens: 30 }],
  ['greedy with a token wished for', { temperature: 0, logitBias: [[7, 9]] }, false],
  ['top-k', { topK: 20 }, true],
  ['top-k of more than the head', { topK: HEAD_TOKENS + 50 }, false],
  ['top-p', { topP: 0.9, temperature: 0.5 }, true],
  ['top-p of a flat row', { topP: 0.999, temperature: 2 }, false],
  ['min-p', { minP: 0.02 }, true],
  ['min-p of a flat row', { minP: 0.0001, temperature: 2 }, false],
  ['all filters', { topK: 100, topP: 0.8, minP: 0.01, temperature: 0.8 }, true],
  ['no filter', {}, false],
  ['no filter, cold', { temperature: 0.3 }, false],
  ['no filter, hot', { temperature: 1.8 }, false],
  ['penalties and top-k', { topK: 40, presencePenalty: 0.7, frequencyPenalty: 0.1, repetitionPenalty: 1.1 }, true],
  ['penalties and no filter', { presencePenalty: 0.7 }, false],
  ['a token forbidden, top-p', { topP: 0.5, temperature: 0.5, logitBias: [[3, -100]] }, false],
  ['a token wished for, top-k', { topK: 5, logitBias: [[3, 4.5]] }, false],
];

describe.each(cases)('%s', (_, settings, isEnough, context) => {
  const random = new SeededRandom(7);
  const rows = Array.from({ length: 40 }, (__, i) => rowOf(random, i % 4 === 3 ? 1.5 : 3));
  const pair = (): [Sampler, Sampler] => [sampler(settings, context), sampler(settings, context)];
  const temperature = settings.temperature ?? 1;
  const headed = (row: Float32Array, i: number) => headOf(row, temperature, isEnough && i % 4 < 3 ? forbidden : undefined);

  test('draws the tokens that whole rows give', () => {
    const [whole, head] = pair();
    rows.forEach((row, i) => {
      const token = whole.sample(row);
      expect(head.sample(headed(row, i)), `row ${i}`).toBe(token);
      for (const each of [whole, head]) each.accept(token);
    });
  });

  test('has the distribution of the whole row', () => {
    const [whole, head] = pair();
    rows.slice(0, 12).forEach((row, i) => {
      const wanted = whole.distribution(row);
      const got = head.distribution(headed(row, i));
      expect(got.reduce((sum, p, token) => sum + Math.abs(p - wanted[token]!), 0)).toBeLessThan(1e-12);
      for (const each of [whole, head]) each.accept(wanted.indexOf(Math.max(...wanted)));
    });
  });

  test('verifies as with the whole row', () => {
    const [whole, head] = pair();
    const drafter = sampler({ temperature: 1, topK: 12 }, { seed: 3 });
    rows.slice(0, 12).forEach((row) => {
      const drafted = drawDraft(rowOf(random), drafter);
      expect(verify(headOf(row, temperature), drafted, head)).toEqual(verify(row, drafted, whole));
    });
  });
});

describe('log-probabilities', () => {
  const random = new SeededRandom(9);

  test.each([0, 1, 20])('with the %i best are those of the whole row', (numTop) => {
    for (let i = 0; i < 20; i++) {
      const row = rowOf(random);
      const head = headOf(row, 1, forbidden);
      const token = head.tokens[i * 12]!;
      const wanted = scoreToken(row, token, numTop);
      const got = scoreToken(head, token, numTop);
      expect(got.top.map((score) => score.token)).toEqual(wanted.top.map((score) => score.token));
      [got, ...got.top].forEach((score, at) => { expect(score.logprob).toBeCloseTo([wanted, ...wanted.top][at]!.logprob, 10); });
    }
  });

  test('of a token beyond the head are read from the row', () => {
    const row = rowOf(random);
    const token = row.indexOf(Math.min(...row));
    expect(scoreToken(headOf(row, 1), token, 2)).toEqual(scoreToken(row, token, 2));
  });
});

test('how often a draw without filters needs the row is how much weight lies beyond the head', () => {
  const random = new SeededRandom(11);
  const row = rowOf(random, 2);
  let fetched = 0;
  const head = headOf(row, 1, () => { fetched++; return row; });
  const draws = 20_000;
  const drawing = sampler({});
  for (let i = 0; i < draws; i++) drawing.sample(head);
  const share = head.rest / (head.rest + head.logits.reduce((sum, logit) => sum + Math.exp(logit - head.logits[0]!), 0));
  expect(share).toBeGreaterThan(0.05);
  expect(Math.abs(fetched / draws - share)).toBeLessThan(4 * Math.sqrt(share * (1 - share) / draws));
});

test('a row that a vocabulary no larger than the head fills is never fetched', () => {
  const random = new SeededRandom(13);
  const small = Float32Array.from({ length: 100 }, () => random.normal() * 3);
  const draws = () => sampler({ presencePenalty: 0.4 }, { scratch: newSamplerScratch(100) });
  const [whole, head] = [draws(), draws()];
  for (let i = 0; i < 50; i++) {
    const token = whole.sample(small);
    expect(head.sample(headOf(small, 1, forbidden))).toBe(token);
    for (const each of [whole, head]) each.accept(token);
  }
});
