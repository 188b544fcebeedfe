import { describe, expect, test } from 'vitest';
import { scoreToken } from '../../engine/logprobs.ts';
import { newSamplerScratch, Sampler, type SamplerContext, type SamplerSettings } from '../../engine/sampler.ts';
import { chiSquareDeviation } from './chi-square.ts';

const VOCAB = 257;
const off: SamplerSettings = {
  temperature: 1, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [],
};
const scratch = newSamplerScratch(VOCAB);

function sampler(settings: Partial<SamplerSettings> = {}, context: Partial<SamplerContext> = {}): Sampler {
  return new Sampler({ ...off, ...settings }, { seed: 1, promptIds: new Int32Array(0), stopTokenIds: [], minTokens: 0, reproducible: false, scratch, ...context });
}

/** Logits of a spread that real models have, with some ties. */
function row(seed: number, spread = 8): Float32Array {
  let state = seed;
  return Float32Array.from({ length: VOCAB }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.round(((state / 2 ** 32) - 0.5) * 2 * spread * 4) / 4;
  });
}

/** The definition, with sorting and without shortcuts. */
function plain(logits: Float32Array, { temperature, topP, topK, minP }: SamplerSettings): number[] {
  const softmax = (values: number[]): number[] => {
    const max = Math.max(...values);
    const weights = values.map((value) => Math.exp(value - max));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / sum);
  };
  let logit = [...logits].map((value) => value / temperature);
  const hide = (isKept: (token: number) => boolean): void => { logit = logit.map((value, token) => (isKept(token) ? value : -Infinity)); };
  const byLogit = (): number[] => logit.map((_, token) => token).sort((a, b) => logit[b]! - logit[a]! || a - b);

  const p = softmax(logit);
  hide((token) => p[token]! >= minP * Math.max(...p) * (1 - 1e-12));
  if (topK > 0) {
    const kept = new Set(byLogit().slice(0, topK));
    hide((token) => kept.has(token));
  }
  if (topP < 1) {
    const q = softmax(logit);
    let mass = 0;
    const kept = new Set<number>();
    for (const token of byLogit()) {
      if (kept.size > 0 && mass >= topP) break;
      kept.add(token);
      mass += q[token]!;
    }
    hide((token) => kept.has(token));
  }
  return softmax(logit);
}

const filters: Partial<SamplerSettings>[] = [
  {}, { temperature: 0.3 }, { temperature: 2 }, { topK: 1 }, { topK: 7 }, { topK: 10_000 }, { topP: 0.9 }, { topP: 0.013 }, { topP: 0.999 },
  { minP: 0.05 }, { minP: 1 }, { topK: 40, topP: 0.5 }, { topK: 40, topP: 0.95, minP: 0.02, temperature: 0.7 },
];

describe('a distribution', () => {
  test.each(filters)('is what its definition says: %o', (changes) => {
    for (let seed = 1; seed < 30; seed++) {
      const settings = { ...off, ...changes };
      const distance = plain(row(seed), settings).reduce((sum, p, token) => sum + Math.abs(p - sampler(settings).distribution(row(seed))[token]!), 0);
      expect(distance).toBeLessThan(1e-12);
    }
  });

  test('is all on the first of the largest logits when greedy', () => {
    const logits = row(3);
    logits[40] = logits[90] = 100;
    expect(sampler({ temperature: 0 }).distribution(logits).indexOf(1)).toBe(40);
    expect(sampler({ temperature: 0 }).sample(logits)).toBe(40);
  });

  test('survives logits of any size', () => {
    for (const scale of [1e-30, 1e4, 1e30]) {
      const logits = row(5).map((logit) => logit * scale);
      const sum = sampler({ temperature: 1e-3 }).distribution(logits).reduce((a, b) => a + b, 0);
      expect(sum).toBeCloseTo(1, 12);
    }
  });

  test('of rubbish is refused with both numbers', () => {
    expect(() => sampler().distribution(new Float32Array(VOCAB).fill(NaN))).toThrow('largest of 257 logits is -Infinity');
    expect(() => sampler({ temperature: 0 }).sample(Float32Array.of(1, Infinity))).toThrow('is Infinity');
  });

  test('does not change the row that it is given', () => {
    const logits = row(4);
    sampler({ repetitionPenalty: 2, logitBias: [[1, 5]], topP: 0.5 }, { promptIds: Int32Array.of(1, 2, 3) }).sample(logits);
    expect(logits).toEqual(row(4));
  });
});

describe('draws', () => {
  test('have the distribution, by a chi-square test', () => {
    const settings = { ...off, temperature: 1.5, topK: 12 };
    const logits = row(8, 3);
    const expected = plain(logits, settings);
    const counts = new Array<number>(VOCAB).fill(0);
    const drawing = sampler(settings, { seed: 99 });
    const DRAWS = 100_000;
    for (let i = 0; i < DRAWS; i++) counts[drawing.sample(logits)]!++;
    const chiSquare = expected.reduce((sum, p, token) => (p === 0 ? sum : sum + (counts[token]! - DRAWS * p) ** 2 / (DRAWS * p)), 0);
    expect(counts.filter((count) => count > 0)).toHaveLength(12);
    // 11 degrees of freedom: 31.3 is passed once in a thousand.
    expect(chiSquare).toBeLessThan(31.3);
  });

  test('are the same for the same seed, whatever else is drawn between them', () => {
    const draw = (noise: boolean): number[] => {
      const one = sampler({}, { seed: 42 });
      const other = sampler({ topK: 3 }, { seed: 7 });
      return Array.from({ length: 50 }, (_, i) => {
        if (noise) other.sample(row(i + 500));
        return one.sample(row(i, 3));
      });
    };
    expect(draw(true)).toEqual(draw(false));
  });

  test('begin anywhere, whichever seeds lie side by side: the choices of a request have consecutive ones', () => {
    for (const first of [0, 41, 2 ** 40, -3]) {
      const counts = new Float64Array(16);
      for (let i = 0; i < 4000; i++) counts[Math.floor(16 * sampler({}, { seed: first + i }).uniform())]!++;
      expect(chiSquareDeviation(counts, new Float64Array(16).fill(1 / 16))).toBeLessThan(4);
    }
  });

  test('differ for neighbouring, negative and large seeds', () => {
    const seeds = [0, 1, 2, -1, 2 ** 32, 2 ** 32 + 1, 2 ** 52];
    const runs = seeds.map((seed) => {
      const one = sampler({}, { seed });
      return Array.from({ length: 30 }, (_, i) => one.sample(row(i, 2))).join();
    });
    expect(new Set(runs).size).toBe(seeds.length);
  });
});

describe('penalties and bias', () => {
  const logits = Float32Array.from({ length: VOCAB }, (_, token) => (token === 5 ? 3 : token === 6 ? -1 : 0));
  /** How much a token's log-probability stands above token 200's. */
  const odds = (of: Sampler, token: number): number => {
    const p = of.distribution(logits);
    return Math.log(p[token]! / p[200]!);
  };

  test('repetition divides positive and multiplies negative logits of prompt and output', () => {
    const one = sampler({ repetitionPenalty: 1.5 }, { promptIds: Int32Array.of(6) });
    one.accept(5);
    expect(odds(one, 5)).toBeCloseTo(2, 6);
    expect(odds(one, 6)).toBeCloseTo(-1.5, 6);
  });

  test('presence counts a generated token once and frequency every time, the prompt not at all', () => {
    const one = sampler({ presencePenalty: 0.5, frequencyPenalty: 0.25 }, { promptIds: Int32Array.of(6) });
    one.accept(5);
    one.accept(5);
    expect(odds(one, 5)).toBeCloseTo(3 - 0.5 - 2 * 0.25, 6);
    expect(odds(one, 6)).toBeCloseTo(-1, 6);
  });

  test('a bias is added, and can forbid or force', () => {
    expect(odds(sampler({ logitBias: [[5, -1]] }), 5)).toBeCloseTo(2, 6);
    expect(sampler({ logitBias: [[5, -100]], temperature: 0 }).sample(logits)).toBe(0);
    expect(sampler({ logitBias: [[9, 100]], temperature: 0 }).sample(logits)).toBe(9);
  });

  test('stop tokens cannot be drawn before the least number of tokens', () => {
    const one = sampler({ temperature: 0 }, { stopTokenIds: [5], minTokens: 2 });
    expect(one.sample(logits)).not.toBe(5);
    one.accept(1);
    expect(one.distribution(logits)[5]).toBe(0);
    one.accept(1);
    expect(one.sample(logits)).toBe(5);
  });
});

describe('log-probabilities', () => {
  test('are of the raw distribution, and the best come first', () => {
    const logits = row(11);
    const expected = plain(logits, off).map(Math.log);
    const { logprob, top } = scoreToken(logits, 17, 5);
    expect(logprob).toBeCloseTo(expected[17]!, 9);
    const best = expected.map((value, token) => ({ token, value })).sort((a, b) => b.value - a.value || a.token - b.token).slice(0, 5);
    expect(top.map(({ token }) => token)).toEqual(best.map(({ token }) => token));
    top.forEach((entry, i) => { expect(entry.logprob).toBeCloseTo(best[i]!.value, 9); });
  });

  test('report no alternatives when none are asked for', () => {
    expect(scoreToken(row(1), 3, 0).top).toEqual([]);
  });
});
