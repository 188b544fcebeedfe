// RAPID (John-AI-Lab/RAPID at 22d41f4) says that its answers have the target's distribution, and with knowledge transfer
// they have not. Ours is eta 0 unless a request asks for more, and then the answer says that it is approximate.
import { describe, expect, test } from 'vitest';
import { shiftTowards } from '../../engine/knowledge-transfer.ts';
import { lawOf, randomDistribution, ruleOf, totalVariation } from '../engine/laws.ts';
import { bench, drafting, metricsOf, prompt, request } from '../scheduler/build.ts';
import { SeededRandom } from '../seeded-random.ts';

describe('knowledge transfer', () => {
  test.each([[5, 0.05], [10, 0.05], [20, 0.05]])('with eta %i changes the distribution by more than %d on the average', (eta, least) => {
    const random = new SeededRandom(eta);
    let distance = 0;
    for (let i = 0; i < 100; i++) {
      const [p, q] = [randomDistribution(random, 50, { sharpness: 2 }), randomDistribution(random, 50, { sharpness: 2 })];
      distance += totalVariation(lawOf(q, ruleOf(p, q, shiftTowards(p, q, eta))), p) / 100;
    }
    expect(distance).toBeGreaterThan(least);
  });

  test('with eta 0 changes nothing', () => {
    const random = new SeededRandom(1);
    for (let i = 0; i < 100; i++) {
      const [p, q] = [randomDistribution(random, 50, { sharpness: 2 }), randomDistribution(random, 50, { sharpness: 2 })];
      expect(totalVariation(lawOf(q, ruleOf(p, q, shiftTowards(p, q, 0))), p)).toBeLessThan(1e-12);
    }
  });

  test.each([
    [0, 1, 'exact'], [5, 1, 'approximate'],
    // One token has the whole mass: there is nothing to transfer.
    [5, 0, 'exact'],
  ])('with eta %d at temperature %d the answer says %s', async (eta, temperature, exactness) => {
    const busy = bench();
    const asked = request(1, { maxTokens: 30, speculation: drafting({ speculation: 'rapid', draftPromptIds: prompt(5, 20), eta }) });
    busy.submit({ ...asked, sampling: { ...asked.sampling, temperature } });
    await busy.finish();
    const metrics = metricsOf(busy, 1);
    expect(metrics.speculation!.verifiedPasses).toBeGreaterThan(0);
    expect(metrics.exactness).toBe(exactness);
    if (exactness === 'approximate') expect(metrics.exactnessReason).toContain(`eta ${eta}`);
  });
});
