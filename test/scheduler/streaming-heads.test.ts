// What streaming heads let go of, in the scheduler: more texts at once, longer texts, prompts that are found again.
import { describe, expect, test } from 'vitest';
import { bench, dense, metricsOf, prompt, request } from './build.ts';

describe('streaming heads', () => {
  const half = { ...dense, attention: 'lserve', streamingHeads: 0.5 } as const;
  const memory = { pages: 64, headOrder: Int32Array.of(3, 0, 1, 2), stepTokens: 128 };

  async function mostAtOnce(attention: typeof half | typeof dense): Promise<number> {
    const busy = bench({ ...memory, pages: 264 });
    for (let id = 1; id <= 12; id++) busy.submit(request(id, { promptIds: prompt(id, 4000), maxTokens: 60, attention }));
    let most = 0;
    while (!busy.loop.isIdle) {
      await busy.loop.step();
      busy.loop.checkIntegrity();
      most = Math.max(most, busy.loop.gauges.runningSequences);
    }
    for (let id = 1; id <= 12; id++) expect(metricsOf(busy, id)).toMatchObject({ preemptions: 0, generatedTokens: 60 });
    return most;
  }

  test('let the same memory take more texts at once', async () => {
    expect(await mostAtOnce(dense)).toBe(4);
    expect(await mostAtOnce(half)).toBe(7);
  });

  test('let a text fit that would not with all its heads, and fail one that does not', async () => {
    const busy = bench(memory);
    const promptIds = prompt(1, 100 * 64);
    busy.submit(request(1, { promptIds }), request(2, { promptIds, attention: half }), request(3, { promptIds: prompt(1, 130 * 64), attention: half }));
    await busy.finish();
    expect([1, 2, 3].map((id) => busy.endOf(id))).toMatchObject([{ code: 'kv_capacity' }, { reason: 'length' }, { code: 'kv_capacity' }]);
  });

  test('give a prompt whole from the cache, as long as their rows are there', async () => {
    const busy = bench(memory);
    const ask = async (id: number, length: number) => {
      busy.submit(request(id, { promptIds: prompt(1, length), attention: half }));
      await busy.finish();
      return metricsOf(busy, id).cachedTokens;
    };
    expect([await ask(1, 1600), await ask(2, 1600), await ask(3, 1000), await ask(4, 2000)]).toEqual([0, 1536, 896, 1536]);
  });
});
