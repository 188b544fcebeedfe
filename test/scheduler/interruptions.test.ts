import { describe, expect, test, vi } from 'vitest';
import type { Chunk, Engine, StepResult } from '../../engine/engine.ts';
import { FakeEngine } from '../../engine/fake/fake-engine.ts';
import { KvCache } from '../../kvcache/kv-cache.ts';
import { alone, bench, metricsOf, prompt, recording, request, timed, typesOf as types } from './build.ts';

describe('preemption', () => {
  test('takes the latest of the least urgent, is reported, and changes no token', async () => {
    const busy = bench({ pages: 8 });
    const requests = [request(1, { maxTokens: 200 }), request(2, { maxTokens: 200 }), request(3, { maxTokens: 200, priority: -1 })];
    busy.submit(...requests);
    await busy.finish();
    expect(metricsOf(busy, 2).preemptions).toBeGreaterThan(0);
    expect(metricsOf(busy, 3).preemptions).toBe(0);
    expect(types(busy, 2).filter((type) => type === 'preempted')).toHaveLength(metricsOf(busy, 2).preemptions);
    for (const each of requests) expect(busy.tokensOf(each.id)).toEqual(await alone(each));
  });

  test('does not thrash: every stream advances far between two of them', async () => {
    const busy = bench({ pages: 12 });
    for (let id = 0; id < 12; id++) busy.submit(request(id, { maxTokens: 300 }));
    await busy.finish();
    const preemptions = busy.counters.reduce((sum, counters) => sum + counters.preemptions, 0);
    expect(preemptions).toBeGreaterThan(0);
    expect(preemptions).toBeLessThan(3 * 12);
  });

  test('matches a text that waits for memory only when there may be enough', async () => {
    const match = vi.spyOn(KvCache.prototype, 'match');
    try {
      const busy = bench({ pages: 12 });
      busy.submit(request(1, { maxTokens: 600 }), request(2, { promptIds: prompt(2, 250), maxTokens: 400 }));
      await busy.finish();
      expect(metricsOf(busy, 2).preemptions).toBe(1);
      expect(busy.counters.length).toBeGreaterThan(600);
      expect(match.mock.calls.length, `in ${busy.counters.length} steps`).toBeLessThan(20);
    } finally {
      match.mockRestore();
    }
  });

  test('never starts a prompt that does not fit beside what others are still to take', async () => {
    const { engine, steps } = recording(20);
    const busy = bench({ engine, stepTokens: 64 });
    busy.submit(request(1, { promptIds: prompt(1, 900), maxTokens: 1 }), request(2, { promptIds: prompt(2, 900), maxTokens: 1 }));
    await busy.finish();
    expect(busy.counters.reduce((sum, counters) => sum + counters.preemptions, 0)).toBe(0);
    expect(steps.every((step) => new Set(step.map(({ sequenceId }) => sequenceId)).size === 1)).toBe(true);
  });
});

describe('aborts', () => {
  test('of 200 streams in mid-generation leave nothing', async () => {
    const busy = bench({ pages: 2048, maxSequences: 256 });
    for (let id = 0; id < 200; id++) busy.submit(request(id, { promptIds: prompt(id, 50 + id), maxTokens: 10_000 }));
    for (let step = 0; step < 150; step++) await busy.loop.step();
    expect(busy.loop.gauges.runningSequences).toBe(200);
    for (let id = 0; id < 200; id++) busy.loop.receive({ type: 'abort', id, choice: null, reason: 'client' });
    const numEvents = busy.events.length;
    await busy.loop.step();
    busy.loop.checkIntegrity();
    expect(busy.events).toHaveLength(numEvents);
    expect(busy.loop.gauges).toMatchObject({ runningSequences: 0, waitingSequences: 0, pagesHeld: 0 });
    busy.submit(request(500));
    await busy.finish();
    expect(busy.endOf(500).type).toBe('finished');
  });

  test('for a stop string finish the choice, and only that', async () => {
    const busy = bench();
    busy.submit(request(1, { choices: 2, maxTokens: 50 }));
    for (let step = 0; step < 10; step++) await busy.loop.step();
    busy.loop.receive({ type: 'abort', id: 1, choice: 1, reason: 'stop' });
    await busy.finish();
    expect(busy.endOf(1, 1)).toMatchObject({ reason: 'stop', stopToken: null });
    expect(busy.tokensOf(1, 0)).toHaveLength(50);
  });

  test('that come late or twice change nothing', async () => {
    const busy = bench();
    busy.submit(request(1));
    await busy.finish();
    for (const id of [1, 1, 99]) busy.loop.receive({ type: 'abort', id, choice: null, reason: 'stop' });
    await busy.finish();
    expect(busy.endOf(1)).toMatchObject({ reason: 'length' });
  });
});

describe('a step that throws', () => {
  /** Fails in the steps of the given numbers. */
  function failing(...numbers: number[]): Engine {
    const inner = new FakeEngine({ vocab: 1000, pages: 64 });
    let step = 0;
    const run = (chunks: readonly Chunk[]): Promise<StepResult> => (numbers.includes(step++) ? Promise.reject(new Error('out of order')) : inner.run(chunks));
    return { ...timed(inner, { ms: 0 }), run };
  }

  test('fails its sequences and gives their pages back; later ones run', async () => {
    const busy = bench({ engine: failing(3) });
    busy.submit(request(1, { maxTokens: 50 }), request(2, { maxTokens: 50 }));
    await busy.finish();
    busy.loop.checkIntegrity();
    for (const id of [1, 2]) expect(busy.endOf(id)).toMatchObject({ code: 'engine_failed', message: 'out of order' });
    expect(busy.loop.gauges.pagesHeld).toBe(0);
    busy.submit(request(3));
    await busy.finish();
    expect(busy.endOf(3).type).toBe('finished');
  });

  test('twice in a row is the end', async () => {
    const busy = bench({ engine: failing(1, 2) });
    busy.submit(request(1));
    await busy.loop.step();
    await busy.loop.step();
    busy.submit(request(2));
    await expect(busy.loop.step()).rejects.toThrow('2 steps failed in a row');
    expect(busy.endOf(2).type).toBe('failed');
  });
});
