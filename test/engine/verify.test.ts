import { describe, expect, test } from 'vitest';
import { shiftTowards } from '../../engine/knowledge-transfer.ts';
import { newSamplerScratch, Sampler, type SamplerContext, type SamplerSettings } from '../../engine/sampler.ts';
import { acceptance, drawDraft, residual, verify } from '../../engine/verify.ts';
import { SeededRandom } from '../seeded-random.ts';
import { chiSquareDeviation } from './chi-square.ts';
import { lawOf, randomDistribution, ruleOf, totalVariation } from './laws.ts';

const VOCAB = 12;
const settings: SamplerSettings = {
  temperature: 1, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [],
};
const scratch = newSamplerScratch(VOCAB);

function sampler(changes: Partial<SamplerSettings> = {}, context: Partial<SamplerContext> = {}): Sampler {
  return new Sampler({ ...settings, ...changes }, { seed: 1, promptIds: new Int32Array(0), stopTokenIds: [], minTokens: 0, reproducible: false, scratch, ...context });
}

/** Logits of a row, such that rows of near seeds are alike. */
function row(seed: number): Float32Array {
  const random = new SeededRandom(Math.floor(seed));
  const other = new SeededRandom(1000 + Math.floor(seed * 10));
  return Float32Array.from({ length: VOCAB }, () => 2 * random.normal() + other.normal());
}

const shapes = [{ sharpness: 0.5 }, { sharpness: 2 }, { sharpness: 6 }, { sharpness: 2, zeros: 0.6 }, { sharpness: 5, zeros: 0.9 }];

describe('the law of what comes out', () => {
  test.each([2, 3, 50, 1000])('is the target distribution, at one level and at two, over %i tokens', (vocab) => {
    const random = new SeededRandom(vocab);
    for (const shape of shapes) {
      for (let i = 0; i < 40; i++) {
        const [q, middle, p] = [1, 2, 3].map(() => randomDistribution(random, vocab, shape)) as [Float64Array, Float64Array, Float64Array];
        expect(totalVariation(lawOf(q, ruleOf(p, q)), p)).toBeLessThan(1e-12);
        const proposed = lawOf(q, ruleOf(middle, q));
        expect(totalVariation(lawOf(proposed, ruleOf(p, middle)), p)).toBeLessThan(1e-12);
      }
    }
  });

  test('is the target distribution for a token without one, whose whole mass is on it', () => {
    const random = new SeededRandom(9);
    for (const shape of shapes) {
      const p = randomDistribution(random, 30, shape);
      const point = new Float64Array(30).fill(1, 7, 8);
      expect(totalVariation(lawOf(point, ruleOf(p, point)), p)).toBeLessThan(1e-12);
    }
  });

  test('where both are the same everything is accepted', () => {
    const p = randomDistribution(new SeededRandom(3), 40, {});
    for (let token = 0; token < 40; token++) expect(acceptance(p, p, token)).toBe(1);
    expect(residual(p, p)).toBe(p);
  });
});

describe('drawn tokens', () => {
  const filters: Partial<SamplerSettings>[] = [{}, { temperature: 0.7 }, { temperature: 1, topP: 0.8 }, { temperature: 0.7, topP: 0.9, topK: 6 }];

  test.each(filters)('have the distribution that the sampler draws from: %o', (changes) => {
    const target = sampler(changes);
    const counts = new Float64Array(VOCAB);
    let accepted = 0;
    for (let i = 0; i < 40_000; i++) {
      const drafted = drawDraft(row(5.1), target.fork());
      const verdict = verify(row(5.2), drafted, target);
      counts[verdict.token]!++;
      if (verdict.accepted) accepted++;
    }
    expect(chiSquareDeviation(counts, sampler(changes).distribution(row(5.2)))).toBeLessThan(4);
    expect(accepted).toBeGreaterThan(10_000);
    expect(accepted).toBeLessThan(39_900);
  });

  test('of a seed are those of plain decoding, whatever was drafted', () => {
    const rows = Array.from({ length: 300 }, (_, i) => row(i + 0.5));
    const plain = sampler({}, { seed: 77, reproducible: true });
    const expected = rows.map((logits) => plain.sample(logits));
    const target = sampler({}, { seed: 77, reproducible: true });
    let accepted = 0;
    const got = rows.map((logits, i) => {
      const verdict = verify(logits, drawDraft(row(i + 0.6), target.fork()), target);
      if (verdict.accepted) accepted++;
      return verdict.token;
    });
    expect(got).toEqual(expected);
    expect(accepted).toBeGreaterThan(90);
  });

  test('of a greedy sampler are the likeliest, accepted only where they are', () => {
    const target = sampler({ temperature: 0 });
    const best = target.sample(row(4));
    expect(verify(row(4), { token: best, distribution: null }, target)).toEqual({ token: best, accepted: true });
    expect(verify(row(4), { token: (best + 1) % VOCAB, distribution: null }, target)).toEqual({ token: best, accepted: false });
  });

  test('that a fork draws leave the numbers of the sampler alone', () => {
    const a = sampler();
    const b = sampler();
    for (let i = 0; i < 10; i++) drawDraft(row(i), a.fork());
    expect(Array.from({ length: 20 }, () => a.uniform())).toEqual(Array.from({ length: 20 }, () => b.uniform()));
  });

  test('are penalised as often as they were drafted before', () => {
    const target = sampler({ temperature: 0, presencePenalty: 2, frequencyPenalty: 30 });
    const fork = target.fork();
    const first = drawDraft(row(4), fork).token;
    fork.accept(first);
    expect(drawDraft(row(4), fork).token).not.toBe(first);
    expect(target.sample(row(4))).toBe(first);
  });
});

describe('knowledge transfer', () => {
  const p = Float64Array.of(2, 1, 0).map(Math.exp);
  const target = p.map((weight) => weight / (Math.exp(2) + Math.exp(1) + 1));
  const q = Float64Array.of(0.2, 0.7, 0.1);

  test.each([
    [1, [0.467016, 0.431331, 0.101654], [0.468669, 0.431331, 0.1]],
    [5, [0.025544, 0.937251, 0.037205], [0.244698, 0.7, 0.055302]],
    [10, [0.000272, 0.995464, 0.004264], [0.261981, 0.7, 0.038019]],
  ])('with eta %i is the paper\'s, worked out by hand', (eta, shifted, law) => {
    const got = shiftTowards(target, q, eta);
    expect(totalVariation(got, Float64Array.from(shifted))).toBeLessThan(2e-6);
    expect(totalVariation(lawOf(q, ruleOf(target, q, got)), Float64Array.from(law))).toBeLessThan(2e-6);
  });

  test('with eta 0 is nothing', () => {
    expect(totalVariation(shiftTowards(target, q, 0), target)).toBeLessThan(1e-15);
  });

  test('gives nothing to tokens that the filters have removed, and no number that is none', () => {
    const random = new SeededRandom(4);
    for (let i = 0; i < 100; i++) {
      const [a, b] = [randomDistribution(random, 20, { sharpness: 3, zeros: 0.5 }), randomDistribution(random, 20, { sharpness: 3, zeros: 0.5 })];
      const shifted = shiftTowards(a, b, 100);
      expect(shifted.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12);
      a.forEach((share, token) => { if (share === 0) expect(shifted[token]).toBe(0); });
    }
  });
});
