/** The process that load-process.ts starts: runs one task against a server, reports, ends. */
import { setMaxListeners } from 'node:events';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, type StreamOptions, type StreamResult } from './client.ts';
import { firstModel } from './load.ts';
import type { Task, TaskMessage, TaskResult, TaskType } from './load-process.ts';

/** More than any benchmark waits for. */
const ENDLESS_TOKENS = 100_000;

const TASKS: { readonly [T in TaskType]: (client: Client, task: Task<T>, stopped: AbortSignal) => Promise<TaskResult<T>> } = {
  streams: readStreams,
  leave: leaveStreams,
  health: pollHealth,
};

async function readStreams(client: Client, { count, maxTokens }: Task<'streams'>): Promise<TaskResult<'streams'>> {
  const model = await firstModel(client);
  const startMs = Date.now();
  const results = await Promise.all(Array.from({ length: count }, (_, i) => openStream(client, { model, name: i, maxTokens })));
  const endMs = Date.now();
  const lengths = results.map(({ usage }) => usage?.completion_tokens ?? 0);
  const short = lengths.filter((length) => length !== maxTokens).map((length) => `a stream of ${maxTokens} tokens had ${length}`);
  return { tokens: lengths.reduce((sum, length) => sum + length, 0), startMs, endMs, errors: [...errorsOf(results), ...short] };
}

async function leaveStreams(client: Client, { count }: Task<'leave'>): Promise<TaskResult<'leave'>> {
  const model = await firstModel(client);
  const leave = new AbortController();
  setMaxListeners(count, leave.signal);
  let leftMs = NaN;
  let shown = 0;
  const onContent = (chunks: number): void => {
    if (chunks > 1 || ++shown < count) return;
    leftMs = Date.now();
    leave.abort();
  };
  const streams = Array.from({ length: count }, (_, i) => openStream(client, { model, name: i, maxTokens: ENDLESS_TOKENS }, { signal: leave.signal, onContent }));
  const results = await Promise.all(streams);
  const ended = results.filter(({ cancelled }) => !cancelled).map(() => 'an endless stream ended by itself');
  return { errors: [...errorsOf(results), ...ended], leftMs };
}

async function pollHealth(client: Client, { everyMs }: Task<'health'>, stopped: AbortSignal): Promise<TaskResult<'health'>> {
  const latenciesMs: number[] = [];
  let failures = 0;
  do {
    const sentMs = performance.now();
    const { status } = await client.get('/health');
    latenciesMs.push(performance.now() - sentMs);
    if (status !== 200) failures++;
    await sleep(everyMs);
  } while (!stopped.aborted);
  return { latenciesMs, failures };
}

interface StreamOrder {
  readonly model: string;
  /** Makes the prompt unlike the others. */
  readonly name: number;
  readonly maxTokens: number;
}

function openStream(client: Client, { model, name, maxTokens }: StreamOrder, options: StreamOptions = {}): Promise<StreamResult> {
  const messages = [{ role: 'user', content: `Story ${name}: go on.` }];
  return client.stream('/v1/chat/completions', { model, messages, max_tokens: maxTokens, ignore_eos: true, temperature: 0 }, options);
}

function errorsOf(results: readonly StreamResult[]): string[] {
  return [...new Set(results.flatMap(({ error }) => error ?? []))];
}

async function runTask<T extends TaskType>(type: T, baseUrl: string, task: Task<T>, stopped: AbortSignal): Promise<TaskResult<T>> {
  const client = new Client(baseUrl);
  try {
    return await TASKS[type](client, task, stopped);
  } finally {
    await client.close();
  }
}

const stopping = new AbortController();

process.on('message', (message: TaskMessage | 'stop') => {
  if (message === 'stop') stopping.abort();
  else void runTask(message.type, message.baseUrl, message.task as Task<TaskType>, stopping.signal).then(report, fail);
});

function report(result: TaskResult<TaskType>): void {
  process.send?.(result, () => { process.disconnect(); });
}

function fail(error: unknown): void {
  console.error(`client process: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}

// Whoever started this has gone: nobody waits for the result.
process.on('disconnect', () => process.exit());
