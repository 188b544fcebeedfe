/**
 * How much the HTTP side carries, without a model: `npm run bench:front` starts the server with the fake
 * engine and measures streams, tokenising and cancellation over HTTP. Clients run in other processes. A
 * table for people with the wanted figures beside, then one line of JSON; exit code 1 when one is missed.
 */
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from './client.ts';
import { firstModel } from './load.ts';
import { startTask, type TaskResult } from './load-process.ts';
import { cutBook, readBook } from './prompts.ts';
import { histogramQuantile, parseMetrics, sumOf, type Samples } from './prometheus-text.ts';
import { startServer } from './server-process.ts';
import { percentile } from './statistics.ts';
import { alignColumns } from './table.ts';

interface Figure {
  readonly name: string;
  /** null: the server does not show it. */
  readonly value: number | null;
  readonly unit: string;
  readonly wanted: { readonly atLeast?: number; readonly atMost?: number } | null;
}

const STREAMS = { count: 64, maxTokens: 4096, warmUpTokens: 512, clients: 2 };
/** A step of the fake engine in the paced run: 64 tokens each. */
const PACED_STEP_MS = 1;
const PROMPT_BYTES = 4 * 1024 * 1024;
const PROMPTS = 6;
const HEALTH_EVERY_MS = 5;
const LEAVING = { count: 200, stepMs: 5, withinMs: 2_000 };

const SECONDS_OF_TOKENIZING = 'longspan:tokenizer_seconds_sum';
const ENGINE_TO_SOCKET = 'longspan:engine_to_socket_seconds';

async function withServer(flags: readonly string[], measure: (client: Client, baseUrl: string) => Promise<Figure[]>): Promise<Figure[]> {
  const server = await startServer(['--engine', 'fake', '--no-access-log', ...flags]);
  const client = new Client(server.baseUrl);
  try {
    return await measure(client, server.baseUrl);
  } finally {
    await client.close();
    await server.stop();
  }
}

async function scrape(client: Client): Promise<Samples> {
  return parseMetrics((await client.get('/metrics')).text);
}

interface StreamRun {
  readonly label: string;
  /** Per second; null where the engine's pace sets the limit. */
  readonly wantedTokens: number | null;
}

/** 64 streams at once, read by two client processes; a first round warms the code up. */
async function measureStreams(client: Client, baseUrl: string, { label, wantedTokens }: StreamRun): Promise<Figure[]> {
  await readStreams(baseUrl, STREAMS.warmUpTokens);
  const before = await scrape(client);
  const results = await readStreams(baseUrl, STREAMS.maxTokens);
  const after = await scrape(client);
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  const seconds = (Math.max(...results.map(({ endMs }) => endMs)) - Math.min(...results.map(({ startMs }) => startMs))) / 1000;
  const toSocket = (quantile: number): number | null => milliseconds(histogramQuantile(before, after, ENGINE_TO_SOCKET, quantile));
  return [
    { name: `${STREAMS.count} streams, ${label}: tokens`, value: tokens / seconds, unit: '/s', wanted: wantedTokens === null ? null : { atLeast: wantedTokens } },
    { name: `${STREAMS.count} streams, ${label}: engine to socket, median`, value: toSocket(0.5), unit: 'ms', wanted: { atMost: 1 } },
    { name: `${STREAMS.count} streams, ${label}: engine to socket, p99`, value: toSocket(0.99), unit: 'ms', wanted: null },
  ];
}

async function readStreams(baseUrl: string, maxTokens: number): Promise<TaskResult<'streams'>[]> {
  const task = { count: STREAMS.count / STREAMS.clients, maxTokens };
  const results = await Promise.all(Array.from({ length: STREAMS.clients }, () => startTask('streams', baseUrl, task).result));
  refuse(results.flatMap(({ errors }) => errors));
  return results;
}

function milliseconds(seconds: number | null): number | null {
  return seconds === null ? null : seconds * 1000;
}

/** Long prompts through /tokenize and through completions, one after the other, while /health is asked. */
async function measureTokenizing(client: Client, baseUrl: string): Promise<Figure[]> {
  const model = await firstModel(client);
  const book = readBook();
  const ways = {
    '/tokenize': (prompt: string) => client.post('/tokenize', { model, prompt }),
    // Attention 'streaming' takes prompts beyond the model's context.
    completion: (prompt: string) => client.post('/v1/completions', { model, prompt, max_tokens: 1, long_context: { attention: 'streaming' } }),
  };
  const figures: Figure[] = [];
  for (const [way, [name, send]] of Object.entries(ways).entries()) {
    // No text is sent twice: a server may remember the tokens of the last ones.
    const prompts = Array.from({ length: PROMPTS }, (_, i) => cutToBytes(book, (way * PROMPTS + i + 1) * 10_007, PROMPT_BYTES));
    await send(cutToBytes(book, 0, PROMPT_BYTES / 4));
    const before = await scrape(client);
    const latenciesMs = await askHealthDuring(baseUrl, async () => {
      for (const prompt of prompts) await send(prompt);
    });
    figures.push(...tokenizingFigures(name, secondsTokenizing(before, await scrape(client)), latenciesMs));
  }
  return figures;
}

/** `latenciesMs` ascend. */
function tokenizingFigures(name: string, seconds: number | null, latenciesMs: readonly number[]): Figure[] {
  return [
    { name: `4 MB prompts, ${name}: tokenised`, value: seconds === null ? null : (PROMPTS * PROMPT_BYTES) / 1e6 / seconds, unit: 'MB/s', wanted: { atLeast: 8 } },
    { name: `4 MB prompts, ${name}: /health meanwhile, p99 of ${latenciesMs.length}`, value: percentile(latenciesMs, 99), unit: 'ms', wanted: { atMost: 50 } },
    { name: `4 MB prompts, ${name}: /health meanwhile, longest`, value: percentile(latenciesMs, 100), unit: 'ms', wanted: null },
  ];
}

/** Latencies of /health while `work` runs, ascending. */
async function askHealthDuring(baseUrl: string, work: () => Promise<void>): Promise<number[]> {
  const health = startTask('health', baseUrl, { everyMs: HEALTH_EVERY_MS });
  await work().finally(() => { health.stop(); });
  const { latenciesMs, failures } = await health.result;
  refuse(failures === 0 ? [] : [`/health failed ${failures} times`]);
  return latenciesMs.sort((a, b) => a - b);
}

/** null: the server does not show it. */
function secondsTokenizing(before: Samples, after: Samples): number | null {
  const total = sumOf(after, SECONDS_OF_TOKENIZING);
  return total === null ? null : total - (sumOf(before, SECONDS_OF_TOKENIZING) ?? 0);
}

/** `bytes` of UTF-8 at most. */
function cutToBytes(book: string, from: number, bytes: number): string {
  return new TextDecoder().decode(new TextEncoder().encode(cutBook(book, from, bytes)).subarray(0, bytes), { stream: true });
}

/** 200 clients leave in mid-generation: when is nothing running and no page held, and is the next one served? */
async function measureLeaving(client: Client, baseUrl: string): Promise<Figure[]> {
  const leaving = startTask('leave', baseUrl, { count: LEAVING.count });
  const { leftMs, errors } = await leaving.result;
  refuse(errors);
  const idleMs = await untilIdle(client, leftMs + 5 * LEAVING.withinMs);
  const model = await firstModel(client);
  const next = (await client.post('/v1/completions', { model, prompt: 'Is anyone there?', max_tokens: 4 })) as { usage: { completion_tokens: number } };
  return [
    { name: `${LEAVING.count} streams cancelled: idle after`, value: idleMs === null ? null : idleMs - leftMs, unit: 'ms', wanted: { atMost: LEAVING.withinMs } },
    { name: 'next request: tokens', value: next.usage.completion_tokens, unit: '', wanted: { atLeast: 1 } },
  ];
}

/** Epoch milliseconds at which /metrics shows nothing running, nothing waiting, no page held; null when not by `deadlineMs`. */
async function untilIdle(client: Client, deadlineMs: number): Promise<number | null> {
  while (Date.now() < deadlineMs) {
    const samples = await scrape(client);
    const busy = [sumOf(samples, 'vllm:num_requests_running'), sumOf(samples, 'vllm:num_requests_waiting'), sumOf(samples, 'longspan:pages', { state: 'held' })];
    if (busy.every((value) => value === 0)) return Date.now();
    await sleep(10);
  }
  return null;
}

function refuse(errors: readonly string[]): void {
  if (errors.length > 0) throw new Error(`requests failed: ${[...new Set(errors)].join('; ')}`);
}

function isMet({ value, wanted }: Figure): boolean {
  return wanted === null || (value !== null && value >= (wanted.atLeast ?? -Infinity) && value <= (wanted.atMost ?? Infinity));
}

function print(figures: readonly Figure[]): void {
  const rows = figures.map((figure) => {
    const { name, value, unit, wanted } = figure;
    const bound = wanted === null ? '' : wanted.atLeast === undefined ? `<= ${wanted.atMost}` : `>= ${wanted.atLeast}`;
    return [name, value === null ? 'not shown' : value.toFixed(value < 100 ? 2 : 0), unit, bound, isMet(figure) ? '' : 'MISSED'];
  });
  console.log(alignColumns([['figure', 'measured', 'unit', 'wanted', ''], ...rows]));
  console.log(JSON.stringify({ cpu: cpus()[0]?.model ?? null, cores: availableParallelism(), figures: figures.map((figure) => ({ ...figure, met: isMet(figure) })) }));
}

try {
  const figures = [
    ...(await withServer([], (client, url) => measureStreams(client, url, { label: 'unpaced', wantedTokens: 50_000 }))),
    ...(await withServer(['--fake-step-ms', String(PACED_STEP_MS)], (client, url) => measureStreams(client, url, { label: 'paced', wantedTokens: null }))),
    ...(await withServer([], measureTokenizing)),
    ...(await withServer(['--fake-step-ms', String(LEAVING.stepMs), '--max-sequences', String(LEAVING.count)], measureLeaving)),
  ];
  print(figures);
  if (!figures.every(isMet)) process.exitCode = 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
