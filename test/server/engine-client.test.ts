/** The engine client against a scripted engine side: requests, ends, deaths, restarts. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { EngineUnavailableError } from '../../server/errors.ts';
import { type Scripted, counters, endings, finished, gauges, readAll, request, scripted, spec, started, tokens } from './scripted-engine.ts';

async function ready(): Promise<Scripted> {
  const script = scripted();
  script.life().ready();
  await script.engine.whenReady();
  return script;
}

describe('starting', () => {
  it('takes no request before the engine is ready', () => {
    const { engine } = scripted();
    expect(engine.state).toBe('starting');
    expect(engine.spec).toBeNull();
    expect(() => engine.submit(request())).toThrow(EngineUnavailableError);
  });

  it('knows the model, the memory and the gauges once ready', async () => {
    const { engine } = await ready();
    expect([engine.state, engine.spec, engine.kvTokens, engine.gauges]).toEqual(['ready', spec, 6400, gauges]);
  });

  it('rejects whenReady with the reason when the engine cannot be built, and does not try again', async () => {
    const { engine, lives, life } = scripted();
    const waiting = engine.whenReady();
    life().say({ type: 'fatal', message: 'the model has three heads.' });
    await expect(waiting).rejects.toThrow('the model has three heads.');
    await expect(engine.whenReady()).rejects.toThrow('the model has three heads.');
    await sleep(20);
    expect([engine.state, lives.length]).toEqual(['closed', 1]);
  });

  it('rejects whenReady when the process dies without a word', async () => {
    const { engine, life } = scripted();
    life().die('the engine process ended with SIGILL');
    await expect(engine.whenReady()).rejects.toThrow('SIGILL');
  });
});

describe('a request', () => {
  it('is sent with an id of its own, and its events come in order until the last choice has ended', async () => {
    const { engine, life } = await ready();
    const one = engine.submit(request({ choices: 2 }));
    const other = engine.submit(request());
    expect(one.id).not.toBe(other.id);
    expect(life().sent.map((message) => message.type === 'submit' && message.request.id)).toEqual([one.id, other.id]);
    life().step(started(one.id), tokens(one.id, 0, 7), tokens(one.id, 1, 8));
    const reading = readAll(one);
    await sleep(1);
    life().step(tokens(other.id, 0, 1), finished(one.id, 1));
    life().step(tokens(one.id, 0, 9), finished(one.id, 0));
    expect((await reading).map((event) => event.type)).toEqual(['started', 'tokens', 'tokens', 'finished', 'tokens', 'finished']);
    expect(await one[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined });
  });

  it('ends each choice once even if the engine says more', async () => {
    const { engine, life } = await ready();
    const generation = engine.submit(request({ choices: 2 }));
    const { id } = generation;
    life().step(finished(id, 0), finished(id, 0), tokens(id, 0, 1), finished(id, 1), finished(id, 1));
    expect(endings(await readAll(generation))).toEqual(['0 length', '1 length']);
  });

  it('counts as queued until it starts, is cancelled or fails', async () => {
    const { engine, life } = await ready();
    const submitted = [1, 2, 3, 4].map((n) => engine.submit(request({ promptIds: new Int32Array(n) })));
    expect(engine.queued).toEqual({ requests: 4, tokens: 10 });
    life().step(started(submitted[3]!.id), tokens(submitted[3]!.id, 0, 1));
    expect(engine.queued).toEqual({ requests: 3, tokens: 6 });
    submitted[2]!.cancel();
    expect(engine.queued).toEqual({ requests: 2, tokens: 3 });
    life().step({ type: 'failed', id: submitted[1]!.id, choice: 0, code: 'deadline_exceeded', message: '' });
    expect(engine.queued).toEqual({ requests: 1, tokens: 1 });
    life().die('crash');
    expect(engine.queued).toEqual({ requests: 0, tokens: 0 });
  });

  it('asks the engine to stop a choice, once it has not ended', async () => {
    const { engine, life } = await ready();
    const generation = engine.submit(request({ choices: 2 }));
    life().step(finished(generation.id, 0));
    generation.stopChoice(0);
    generation.stopChoice(1);
    expect(life().sent.slice(1)).toEqual([{ type: 'abort', id: generation.id, choice: 1, reason: 'stop' }]);
  });

  it('ends at once when cancelled, tells the engine once, and hears no more', async () => {
    const { engine, life } = await ready();
    const generation = engine.submit(request());
    const reading = readAll(generation);
    generation.cancel();
    generation.cancel();
    life().step(tokens(generation.id, 0, 1), finished(generation.id));
    expect(await reading).toEqual([]);
    expect(life().sent.slice(1)).toEqual([{ type: 'abort', id: generation.id, choice: null, reason: 'client' }]);
  });

  it('is cancelled when its reader leaves the loop, but not after its end', async () => {
    const { engine, life } = await ready();
    const left = engine.submit(request());
    life().step(tokens(left.id, 0, 1), tokens(left.id, 0, 2));
    for await (const event of left) if (event.type === 'tokens') break;
    const whole = engine.submit(request());
    life().step(finished(whole.id));
    for await (const event of whole) if (event.type === 'finished') break;
    expect(life().sent.filter(({ type }) => type === 'abort')).toEqual([{ type: 'abort', id: left.id, choice: null, reason: 'client' }]);
  });

  it('hands queued events over without waiting, many of them', async () => {
    const { engine, life } = await ready();
    const generation = engine.submit(request());
    for (let i = 0; i < 10_000; i++) life().step(tokens(generation.id, 0, i));
    life().step(finished(generation.id));
    const events = await readAll(generation);
    expect(events.flatMap((event) => (event.type === 'tokens' ? event.tokens : []))).toEqual(Array.from({ length: 10_000 }, (_, i) => i));
  });

  it('reports every step with its counters and gauges until unsubscribed', async () => {
    const { engine, life } = await ready();
    const listener = vi.fn();
    const unsubscribe = engine.onStep(listener);
    life().step();
    unsubscribe();
    life().step();
    expect(listener.mock.calls).toEqual([[counters, gauges]]);
  });
});

describe('when the engine side dies', () => {
  it('fails every running choice once, is ready again by itself, and serves again', async () => {
    const { engine, lives, life } = await ready();
    const half = engine.submit(request({ choices: 2 }));
    const waiting = engine.submit(request());
    const reading = Promise.all([readAll(half), readAll(waiting)]);
    lives[0]!.step(tokens(half.id, 0, 1), finished(half.id, 0));
    lives[0]!.die('SIGKILL');
    expect((await reading).map(endings)).toEqual([['0 length', '1 engine_failed'], ['0 engine_failed']]);
    expect(engine.state).toBe('restarting');
    expect(engine.gauges.pagesHeld).toBe(0);
    expect(() => engine.submit(request())).toThrow(/restarting/);
    await vi.waitFor(() => { expect(lives.length).toBe(2); });
    life().ready();
    await engine.whenReady();
    const next = engine.submit(request());
    life().step(finished(next.id));
    expect(endings(await readAll(next))).toEqual(['0 length']);
  });

  it('says why to its listeners', async () => {
    const { engine, life } = await ready();
    const listener = vi.fn();
    engine.onDown(listener);
    life().say({ type: 'fatal', message: 'a step failed twice.' });
    expect(life().killed).toBe(true);
    expect(listener.mock.calls).toEqual([['a step failed twice.', 'restarting']]);
  });

  it('gives up after eight starts in a row that never become ready', async () => {
    const { engine, lives, life } = await ready();
    life().die('crash');
    for (let start = 2; start <= 9; start++) {
      await vi.waitFor(() => { expect(lives.length).toBe(start); }, { timeout: 10_000 });
      life().die(`crash ${start}`);
    }
    expect(engine.state).toBe('closed');
    await expect(engine.whenReady()).rejects.toThrow('crash 9');
  });
});

describe('closing', () => {
  it('fails what runs with shutting_down and asks the engine side to end', async () => {
    const { engine, life } = await ready();
    const reading = readAll(engine.submit(request()));
    await engine.close();
    await engine.close();
    expect(endings(await reading)).toEqual(['0 shutting_down']);
    expect(life().sent.at(-1)).toEqual({ type: 'close' });
    expect(engine.state).toBe('closed');
  });

  it('while waiting to restart, starts nothing more', async () => {
    const { engine, lives, life } = await ready();
    life().die('crash');
    await engine.close();
    await sleep(20);
    expect(lives.length).toBe(1);
  });
});
