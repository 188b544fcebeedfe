import { describe, expect, test } from 'vitest';
import { alone, bench, metricsOf, prompt, request, type Bench } from './build.ts';

describe('who goes first', () => {
  const order = (busy: Bench): number[] => busy.events.flatMap((event) => (event.type === 'started' ? [event.id] : []));

  test('is the more urgent, then the earlier', async () => {
    const busy = bench({ maxSequences: 1 });
    busy.submit(request(1), request(2, { priority: 1 }), request(3), request(4, { priority: -1 }));
    await busy.finish();
    expect(order(busy)).toEqual([4, 1, 3, 2]);
  });

  test('is the tenant that was served least', async () => {
    const busy = bench({ maxSequences: 1 });
    for (let id = 0; id < 10; id++) busy.submit(request(id, { tenant: 'greedy', promptIds: prompt(id, 200) }));
    await busy.loop.step();
    busy.submit(request(20, { tenant: 'modest' }), request(21, { tenant: 'modest' }));
    await busy.finish();
    // One long prompt of the one weighs as much as several short ones of the other.
    expect(order(busy).slice(0, 4)).toEqual([0, 20, 1, 21]);
  });

  test('gives two tenants equal service, however many requests each has waiting', async () => {
    const busy = bench({ maxSequences: 2 });
    for (let id = 0; id < 40; id++) busy.submit(request(id, { tenant: id < 30 ? 'many' : 'few', promptIds: prompt(id, 100) }));
    await busy.finish();
    const firstTwenty = order(busy).slice(0, 20);
    expect(firstTwenty.filter((id) => id >= 30).length).toBeGreaterThanOrEqual(9);
  });

  test('cannot be saved up by being idle', async () => {
    const busy = bench({ maxSequences: 1 });
    for (let id = 0; id < 20; id++) busy.submit(request(id, { tenant: 'a', promptIds: prompt(id, 200) }));
    for (let step = 0; step < 100; step++) await busy.loop.step();
    for (let id = 50; id < 70; id++) busy.submit(request(id, { tenant: 'b', promptIds: prompt(id, 200) }));
    await busy.finish();
    const after = order(busy).slice(order(busy).indexOf(50), order(busy).indexOf(50) + 8);
    expect(after.some((id) => id < 20)).toBe(true);
  });

  test('preempts a less urgent stream when there is no other room', async () => {
    const busy = bench({ maxSequences: 1 });
    busy.submit(request(1, { priority: 5, maxTokens: 30 }));
    for (let step = 0; step < 5; step++) await busy.loop.step();
    busy.submit(request(2));
    await busy.finish();
    const ends = busy.events.flatMap((event) => (event.type === 'finished' ? [event.id] : []));
    expect(ends).toEqual([2, 1]);
    expect(metricsOf(busy, 1).preemptions).toBe(1);
    expect(busy.tokensOf(1)).toEqual(await alone(request(1, { maxTokens: 30 })));
  });
});
