import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FakeEngine } from '../../engine/fake/fake-engine.ts';
import type { Engine } from '../../engine/engine.ts';
import { EngineHost } from '../../scheduler/engine-host.ts';
import type { EngineProcessOptions, FromEngine, SequenceEvent, ToEngine } from '../../scheduler/messages.ts';
import { request } from './build.ts';

const options = { maxModelLen: 10_000, maxSequences: 16, stepTokens: 512, targetGapMs: 100, prefixCache: true };

/** What arrived, and a wait for what has not yet. */
class Inbox {
  readonly messages: FromEngine[] = [];
  #check: () => void = () => undefined;

  readonly push = (message: FromEngine): void => {
    this.messages.push(message);
    this.#check();
  };

  get events(): SequenceEvent[] {
    return this.messages.flatMap((message) => (message.type === 'step' ? [...message.events] : []));
  }

  until(isThere: (inbox: Inbox) => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#check = () => { if (isThere(this)) resolve(); };
      this.#check();
    });
  }
}

function host(engine: Engine = new FakeEngine({ pages: 64, vocab: 1000 })): { host: EngineHost; inbox: Inbox } {
  const inbox = new Inbox();
  const started = new EngineHost({ engine, options, send: inbox.push });
  onTestFinished(async () => {
    started.receive({ type: 'close' });
    await started.closed;
  });
  return { host: started, inbox };
}

const hasEnded = (id: number) => (inbox: Inbox) => inbox.events.some((event) => event.id === id && (event.type === 'finished' || event.type === 'failed'));

describe('an engine host', () => {
  test('says that it is ready, and what it serves', () => {
    const { inbox } = host();
    expect(inbox.messages).toMatchObject([{ type: 'ready', kvTokens: 64 * 64, spec: { engine: 'fake' }, gauges: { pagesFree: 64 } }]);
  });

  test('sleeps until a message comes, and again afterwards', async () => {
    const { host: running, inbox } = host();
    for (const id of [1, 2]) {
      running.receive({ type: 'submit', request: request(id) });
      await inbox.until(hasEnded(id));
      const numMessages = inbox.messages.length;
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(inbox.messages).toHaveLength(numMessages);
    }
  });

  test('lets messages in between steps, so that an abort takes effect before the next one', async () => {
    const { host: running, inbox } = host();
    running.receive({ type: 'submit', request: request(1, { maxTokens: 3000 }) });
    await inbox.until(({ events }) => events.length > 20);
    running.receive({ type: 'abort', id: 1, choice: null, reason: 'client' });
    const numSteps = inbox.messages.length;
    await inbox.until(({ messages }) => messages.slice(numSteps).some((message) => message.type === 'step' && message.gauges.pagesHeld === 0));
    expect(inbox.messages.length).toBeLessThanOrEqual(numSteps + 2);
  });

  test('lets messages in while a device works, and then not once more', async () => {
    const inner = new FakeEngine({ pages: 64, vocab: 1000 });
    const engine = Object.assign(inner, { worksApart: true });
    const run = inner.run.bind(inner);
    let [turns, steps, isOver] = [0, 0, false];
    const count = (): void => { turns++; if (!isOver) setImmediate(count); };
    engine.run = async (step) => {
      steps++;
      await new Promise(setImmediate);
      return run(step);
    };
    const { host: running, inbox } = host(engine);
    running.receive({ type: 'submit', request: request(1, { maxTokens: 3000 }) });
    setImmediate(count);
    setTimeout(() => { running.receive({ type: 'abort', id: 1, choice: null, reason: 'client' }); }, 20);
    await inbox.until(({ messages }) => messages.some((message) => message.type === 'step' && message.counters.decodeTokens > 0 && message.gauges.pagesHeld === 0));
    isOver = true;
    expect(steps).toBeLessThan(3000);
    expect(turns).toBeLessThan(steps + 10);
  });

  test('fails what is left when it is closed', async () => {
    const { host: running, inbox } = host();
    running.receive({ type: 'submit', request: request(1, { maxTokens: 3000 }) });
    await inbox.until(({ events }) => events.length > 5);
    running.receive({ type: 'submit', request: request(2) });
    running.receive({ type: 'close' });
    await running.closed;
    for (const id of [1, 2]) expect(inbox.events.filter((event) => event.id === id).at(-1)).toMatchObject({ type: 'failed', code: 'shutting_down' });
  });

  test('waits for the step that runs when preparing the next one fails', async () => {
    const inner = new FakeEngine({ pages: 64, vocab: 1000 });
    let numRunning = 0;
    const engine: Engine = Object.assign(inner, { worksApart: true, prepare: () => { if (inner.pages > 0) throw new Error('no memory for tables'); } });
    const run = inner.run.bind(inner);
    engine.run = async (step) => {
      expect(++numRunning, 'steps at the same time').toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 5));
      numRunning--;
      return run(step);
    };
    const { host: running, inbox } = host(engine);
    for (const id of [1, 2]) {
      running.receive({ type: 'submit', request: request(id, { maxTokens: 100 }) });
      await inbox.until(hasEnded(id));
      expect(inbox.events.at(-1)).toMatchObject({ type: 'failed', code: 'engine_failed' });
      expect(numRunning).toBe(0);
    }
  });

  test('gives up after an engine that keeps failing', async () => {
    const broken = new FakeEngine({ pages: 64 });
    broken.run = () => Promise.reject(new Error('no device'));
    const { host: running, inbox } = host(broken);
    for (const id of [1, 2]) {
      running.receive({ type: 'submit', request: request(id) });
      await inbox.until(hasEnded(id));
    }
    await running.closed;
    expect(inbox.messages.at(-1)).toEqual({ type: 'fatal', message: '2 steps failed in a row: no device' });
  });
});

describe('the engine process', () => {
  const model = fileURLToPath(new URL('../../models/longspan-16m', import.meta.url));
  const processOptions: EngineProcessOptions = {
    ...options, engine: 'fake', model, draftModel: '', precision: 'auto', kvPrecision: 'auto', cudaLibraries: '', cudaKernels: 'plain', threads: 1, kvTokens: 64_000, headFile: '', fakeStepMs: 0,
  };

  function start(changes: Partial<EngineProcessOptions> = {}) {
    const entry = fileURLToPath(new URL('../../scheduler/process.ts', import.meta.url));
    const child = fork(entry, [JSON.stringify({ ...processOptions, ...changes })], { serialization: 'advanced', execArgv: ['--import', 'tsx'] });
    const inbox = new Inbox();
    child.on('message', (message) => { inbox.push(message as FromEngine); });
    onTestFinished(() => { child.kill('SIGKILL'); });
    return { child, inbox, exited: once(child, 'exit') as Promise<[number | null]> };
  }

  test('serves requests and ends when it is closed', async () => {
    const { child, inbox, exited } = start();
    await inbox.until(({ messages }) => messages[0]?.type === 'ready');
    child.send({ type: 'submit', request: request(1, { promptIds: Int32Array.from({ length: 500 }, (_, i) => i) }) } satisfies ToEngine);
    await inbox.until(hasEnded(1));
    expect(inbox.events.at(-1)).toMatchObject({ type: 'finished', metrics: { promptTokens: 500, generatedTokens: 8 } });
    child.send({ type: 'close' } satisfies ToEngine);
    expect((await exited)[0]).toBe(0);
  });

  test('ends when its parent goes', async () => {
    const { child, inbox, exited } = start();
    await inbox.until(({ messages }) => messages[0]?.type === 'ready');
    child.disconnect();
    expect((await exited)[0]).toBe(0);
  });

  test('says in a sentence why it cannot start', async () => {
    const { inbox, exited } = start({ model: fileURLToPath(new URL('./nowhere', import.meta.url)) });
    expect((await exited)[0]).toBe(1);
    expect(inbox.messages).toMatchObject([{ type: 'fatal' }]);
  });
});
