// Defects of TriForce's released code (Infini-AI-Lab/TriForce at 164c8c0), each beside our rule: where it fails, ours holds.
import { describe, expect, test } from 'vitest';
import { lawOf, randomDistribution, ruleOf, totalVariation, type Rule } from '../engine/laws.ts';
import { SeededRandom } from '../seeded-random.ts';

/** On rejection the middle level samples from its own distribution instead of from what the drafter's does not cover. */
function releasedRule(middle: Float64Array, q: Float64Array): Rule {
  return { ...ruleOf(middle, q), replacement: middle };
}

describe('a token that the middle level rejects', () => {
  const q = Float64Array.of(0.6, 0.3, 0.1);
  const middle = Float64Array.of(0.5, 0.2, 0.3);
  const target = Float64Array.of(0.4, 0.4, 0.2);

  test('replaced as the release does it changes the distribution of the answer', () => {
    const proposed = lawOf(q, releasedRule(middle, q));
    expect(totalVariation(proposed, Float64Array.of(0.6, 0.24, 0.16))).toBeLessThan(1e-12);
    const answer = lawOf(proposed, ruleOf(target, middle));
    expect(totalVariation(answer, Float64Array.of(0.48, 0.413, 0.107))).toBeLessThan(1e-3);
    expect(totalVariation(answer, target)).toBeGreaterThan(0.09);
  });

  test('replaced by our rule does not', () => {
    const proposed = lawOf(q, ruleOf(middle, q));
    expect(totalVariation(proposed, middle)).toBeLessThan(1e-12);
    expect(totalVariation(lawOf(proposed, ruleOf(target, middle)), target)).toBeLessThan(1e-12);
  });

  test('over 50 tokens the release is off by a tenth, ours by rounding', () => {
    const random = new SeededRandom(1);
    let released = 0;
    for (let i = 0; i < 100; i++) {
      const [a, b, p] = [1, 2, 3].map(() => randomDistribution(random, 50, { sharpness: 1.5 })) as [Float64Array, Float64Array, Float64Array];
      released += totalVariation(lawOf(lawOf(a, releasedRule(b, a)), ruleOf(p, b)), p) / 100;
      expect(totalVariation(lawOf(lawOf(a, ruleOf(b, a)), ruleOf(p, b)), p)).toBeLessThan(1e-12);
    }
    expect(released).toBeGreaterThan(0.05);
  });
});
