/**
 * What a load test found: latencies as vLLM defines them, counts, goodput. Pure functions from results to
 * a table for people and to one record with the key names of `vllm bench serve`. Knows no HTTP.
 *
 * TTFT: first text - sent. ITL: gaps between pieces of text. TPOT: (E2E - TTFT) / (tokens - 1), first
 * token excluded. E2E: last text - sent. Goodput: finished requests per second that meet every objective.
 */
import type { StreamResult } from './client.ts';
import { describe, type Distribution } from './statistics.ts';
import { alignColumns } from './table.ts';

export type Latency = 'ttft' | 'tpot' | 'itl' | 'e2el';

/** Upper bounds in milliseconds; a request is good when it meets all that are given. */
export type Objectives = Readonly<Partial<Record<Exclude<Latency, 'itl'>, number>>>;

export interface MeasuredRequest {
  /** Wanted prompt length in tokens: the class it is reported under. */
  readonly classTokens: number;
  readonly result: StreamResult;
}

export type Outcome = 'completed' | 'cancelled' | 'refused' | 'failed';

/** One finished request in numbers. */
interface RequestFigures {
  readonly ttft: number;
  /** null for an answer of a single token. */
  readonly tpot: number | null;
  readonly itl: readonly number[];
  readonly e2el: number;
}

export interface Summary {
  readonly requests: number;
  readonly completed: number;
  readonly cancelled: number;
  readonly failed: number;
  readonly refused429: number;
  readonly refused503: number;
  readonly inputTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** Finished requests that met the objectives. */
  readonly good: number;
  readonly latencies: Readonly<Record<Latency, Distribution | null>>;
}

export function outcomeOf(result: StreamResult): Outcome {
  if (result.cancelled) return 'cancelled';
  if (result.status === 429 || result.status === 503) return 'refused';
  return result.error === null && result.contentMs.length > 0 ? 'completed' : 'failed';
}

function figuresOf(result: StreamResult): RequestFigures {
  const ttft = result.contentMs[0]! - result.sentMs;
  const e2el = result.contentMs.at(-1)! - result.sentMs;
  const tokens = result.usage?.completion_tokens ?? result.contentMs.length;
  return {
    ttft, e2el,
    tpot: tokens > 1 ? (e2el - ttft) / (tokens - 1) : null,
    itl: result.contentMs.slice(1).map((at, i) => at - result.contentMs[i]!),
  };
}

function meets(figures: RequestFigures, objectives: Objectives): boolean {
  return Object.entries(objectives).every(([name, boundMs]) => (figures[name as keyof Objectives] ?? 0) <= boundMs);
}

export function summarise(requests: readonly MeasuredRequest[], objectives: Objectives): Summary {
  const results = requests.map(({ result }) => result);
  const count = (outcome: Outcome): number => results.filter((result) => outcomeOf(result) === outcome).length;
  const completed = results.filter((result) => outcomeOf(result) === 'completed');
  const figures = completed.map(figuresOf);
  const sum = (read: (result: StreamResult) => number | undefined): number => completed.reduce((total, result) => total + (read(result) ?? 0), 0);
  return {
    requests: results.length,
    completed: completed.length,
    cancelled: count('cancelled'),
    failed: count('failed'),
    refused429: results.filter((result) => result.status === 429).length,
    refused503: results.filter((result) => result.status === 503).length,
    inputTokens: sum((result) => result.usage?.prompt_tokens),
    cachedTokens: sum((result) => result.usage?.prompt_tokens_details?.cached_tokens),
    outputTokens: sum((result) => result.usage?.completion_tokens ?? result.contentMs.length),
    good: figures.filter((one) => meets(one, objectives)).length,
    latencies: {
      ttft: describe(figures.map(({ ttft }) => ttft)),
      tpot: describe(figures.flatMap(({ tpot }) => tpot ?? [])),
      itl: describe(figures.flatMap(({ itl }) => itl)),
      e2el: describe(figures.map(({ e2el }) => e2el)),
    },
  };
}

/** One Summary per class, shortest prompts first. */
export function summariseByClass(requests: readonly MeasuredRequest[], objectives: Objectives): Map<number, Summary> {
  const classes = [...new Set(requests.map(({ classTokens }) => classTokens))].sort((a, b) => a - b);
  return new Map(classes.map((tokens) => [tokens, summarise(requests.filter(({ classTokens }) => classTokens === tokens), objectives)]));
}

/** The record of `vllm bench serve --save-result`: its names, plus counts it does not have. */
export function toVllmRecord(summary: Summary, seconds: number): Record<string, number | null> {
  const record: Record<string, number | null> = {
    duration: seconds,
    num_prompts: summary.requests,
    completed: summary.completed,
    failed: summary.failed,
    cancelled: summary.cancelled,
    refused_429: summary.refused429,
    refused_503: summary.refused503,
    total_input_tokens: summary.inputTokens,
    total_cached_tokens: summary.cachedTokens,
    total_output_tokens: summary.outputTokens,
    request_throughput: summary.completed / seconds,
    request_goodput: summary.good / seconds,
    output_throughput: summary.outputTokens / seconds,
    total_token_throughput: (summary.inputTokens + summary.outputTokens) / seconds,
  };
  for (const [name, values] of Object.entries(summary.latencies)) {
    for (const figure of ['mean', 'median', 'std', 'p90', 'p95', 'p99'] as const) record[`${figure}_${name}_ms`] = values?.[figure] ?? null;
  }
  return record;
}

/** Fixed-width table: a row per class and one for all. */
export function toTable(rows: ReadonlyMap<string, Summary>, seconds: number): string {
  const header = ['prompt', 'sent', 'done', 'cancel', '429', '503', 'fail', 'cached', 'tok/s', 'good/s'];
  const latencies = ['ttft', 'tpot', 'itl', 'e2el'] as const;
  const lines = [...rows].map(([name, summary]) => [
    name, summary.requests, summary.completed, summary.cancelled, summary.refused429, summary.refused503, summary.failed,
    `${percentOf(summary.cachedTokens, summary.inputTokens)}%`, (summary.outputTokens / seconds).toFixed(1), (summary.good / seconds).toFixed(2),
    ...latencies.flatMap((latency) => [cell(summary.latencies[latency]?.median), cell(summary.latencies[latency]?.p99)]),
  ].map(String));
  return alignColumns([[...header, ...latencies.flatMap((name) => [`${name} p50`, `p99`])], ...lines]);
}

function percentOf(part: number, whole: number): string {
  return (whole === 0 ? 0 : (100 * part) / whole).toFixed(0);
}

function cell(milliseconds: number | undefined): string {
  return milliseconds === undefined ? '-' : milliseconds.toFixed(1);
}
