import { describe, expect, test } from 'vitest';
import { CostModel } from '../../scheduler/cost-model.ts';

describe('the cost model', () => {
  test('knows nothing before it has seen a step', () => {
    const cost = new CostModel(1000);
    expect([cost.decodeStepMs, cost.prefillMsPerToken(1000), cost.prefillTokensPerSecond]).toEqual([0, 0, 0]);
  });

  test('learns what a token costs at each depth from steps of mixed depths', () => {
    const cost = new CostModel(1000);
    for (let step = 0; step < 60; step++) {
      const depth = (step * 977) % 60_000;
      const prefillTokens = 64 + (step * 37) % 448;
      cost.observe({ ms: prefillTokens * (0.1 + depth * 1e-4), decodes: 0, prefillTokens, prefillReads: prefillTokens * depth });
    }
    expect(cost.prefillMsPerToken(0)).toBeCloseTo(0.1, 6);
    expect(cost.prefillMsPerToken(64_000)).toBeCloseTo(6.5, 6);
  });

  test('still knows the deep cost after many shallow steps', () => {
    const cost = new CostModel(1000);
    const observe = (depth: number): void => { cost.observe({ ms: 128 * (0.1 + depth * 1e-4), decodes: 0, prefillTokens: 128, prefillReads: 128 * depth }); };
    for (let depth = 0; depth < 64_000; depth += 1000) observe(depth);
    for (let step = 0; step < 100; step++) observe((step % 4) * 128);
    expect(cost.prefillMsPerToken(64_000)).toBeCloseTo(6.5, 2);
  });

  test('takes the time of the streams off a mixed step', () => {
    const cost = new CostModel(1000);
    for (let step = 0; step < 10; step++) cost.observe({ ms: 5, decodes: 3, prefillTokens: 0, prefillReads: 0 });
    cost.observe({ ms: 15, decodes: 3, prefillTokens: 100, prefillReads: 0 });
    expect(cost.decodeStepMs).toBeCloseTo(5, 9);
    expect(cost.prefillMsPerToken(0)).toBeCloseTo(0.1, 9);
    expect(cost.prefillTokensPerSecond).toBeCloseTo(10_000, 6);
  });

  test('never predicts a negative cost', () => {
    const cost = new CostModel(1000);
    for (const [tokens, depth, ms] of [[100, 0, 50], [100, 1000, 10], [100, 50_000, 1]] as const) {
      cost.observe({ ms, decodes: 0, prefillTokens: tokens, prefillReads: tokens * depth });
      for (const attended of [0, 1000, 1_000_000]) expect(cost.prefillMsPerToken(attended)).toBeGreaterThanOrEqual(0);
    }
  });

  test('guesses what scoring a prompt costs by the vocabulary, then learns it', () => {
    const cost = new CostModel(100_000);
    expect(cost.scoringMsPerToken).toBeCloseTo(1, 9);
    cost.observeScoring(0, 5);
    expect(cost.scoringMsPerToken).toBeCloseTo(1, 9);
    for (let step = 0; step < 200; step++) cost.observeScoring(128, 128 * 0.25);
    expect(cost.scoringMsPerToken).toBeCloseTo(0.25, 2);
  });
});
