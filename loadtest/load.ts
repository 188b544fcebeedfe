/**
 * Runs one load: writes its prompts, sends each at its time, and collects the results. Prints nothing.
 * Called by main.ts.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { arrivalTimesMs, Gate } from './arrivals.ts';
import { HttpError, type Client, type StreamResult } from './client.ts';
import type { LoadOptions } from './options.ts';
import { cutBook, drawClasses, readBook, writePrompt } from './prompts.ts';
import { seededRandom } from './random.ts';
import type { MeasuredRequest } from './report.ts';

/** One request before it is sent. */
export interface PlannedRequest {
  readonly atMs: number;
  readonly classTokens: number;
  readonly prompt: string;
  /** The client leaves after so many pieces of text; null stays to the end. */
  readonly leaveAfter: number | null;
}

/** Pure: the same options and characters per token give the same plan. [numPrompts] */
export function planLoad(options: LoadOptions, book: string, charsPerToken: number): PlannedRequest[] {
  const random = seededRandom(options.seed);
  const times = arrivalTimesMs(options.numPrompts, options.requestRate, random);
  const classes = drawClasses(options.mix, options.numPrompts, random);
  return times.map((atMs, i) => ({
    atMs,
    classTokens: classes[i]!.tokens,
    prompt: writePrompt(book, { tokens: classes[i]!.tokens, charsPerToken, label: `${options.seed}-${i}` }, random),
    leaveAfter: random.next() < options.cancelRate ? 1 + random.below(Math.max(1, options.outputLen - 1)) : null,
  }));
}

export interface LoadResult {
  readonly model: string;
  readonly requests: readonly MeasuredRequest[];
  /** From the first request sent to the last one ended. */
  readonly seconds: number;
}

/** Sends the plan; resolves when the last request has ended. */
export async function runLoad(client: Client, options: LoadOptions): Promise<LoadResult> {
  const book = readBook();
  const model = options.model ?? (await firstModel(client));
  const plan = planLoad(options, book, await measureCharsPerToken(client, book));
  const gate = new Gate(options.maxConcurrency);
  const startMs = performance.now();
  const requests = await Promise.all(plan.map(async (request) => {
    if (request.atMs > 0) await sleep(request.atMs);
    const result = await gate.run(() => sendOne(client, chatBody(model, request.prompt, options), request.leaveAfter));
    return { classTokens: request.classTokens, result };
  }));
  return { model, requests, seconds: (performance.now() - startMs) / 1000 };
}

function chatBody(model: string, prompt: string, options: LoadOptions): object {
  return { model, messages: [{ role: 'user', content: prompt }], max_tokens: options.outputLen, ignore_eos: true, temperature: 0, ...options.extraBody };
}

function sendOne(client: Client, body: object, leaveAfter: number | null): Promise<StreamResult> {
  const controller = new AbortController();
  const onContent = (chunks: number): void => {
    if (leaveAfter !== null && chunks >= leaveAfter) controller.abort();
  };
  return client.stream('/v1/chat/completions', body, { signal: controller.signal, onContent });
}

export async function firstModel(client: Client): Promise<string> {
  const answer = await client.get('/v1/models');
  const id = (JSON.parse(answer.text) as { data?: { id: string }[] }).data?.[0]?.id;
  if (id === undefined) throw new Error(`GET /v1/models answered ${answer.status} and names no model`);
  return id;
}

const SAMPLE_CHARACTERS = 40_000;
/** English text under a vocabulary of the usual size; used where the server has no /tokenize. */
const USUAL_CHARACTERS_PER_TOKEN = 4;

async function measureCharsPerToken(client: Client, book: string): Promise<number> {
  try {
    const answer = (await client.post('/tokenize', { prompt: cutBook(book, 0, SAMPLE_CHARACTERS) })) as { count: number };
    return SAMPLE_CHARACTERS / answer.count;
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    return USUAL_CHARACTERS_PER_TOKEN;
  }
}
