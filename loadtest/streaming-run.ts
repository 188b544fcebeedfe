/**
 * One endless text through a server with streaming attention: a prompt, an answer, and what the server used at points
 * along the way. Knows no flags and prints nothing. Called by streaming.ts.
 */
import { performance } from 'node:perf_hooks';
import type { Client, Position, StreamResult } from './client.ts';
import { usageOf } from './process-usage.ts';
import { parseMetrics, sumOf } from './prometheus-text.ts';

export interface StreamingPlan {
  readonly model: string;
  /** Repeated until it fills the prompt. */
  readonly bookIds: readonly number[];
  readonly promptTokens: number;
  readonly answerTokens: number;
  /** Tokens between two samples. */
  readonly every: number;
  readonly longContext: object;
  readonly seed: number;
  /** Of the server's HTTP process; null: its memory and processor time are not measured. */
  readonly pid: number | null;
}

/** The server at one position of the text. */
export interface Sample extends Position {
  readonly seconds: number;
  /** null where it is not known. */
  readonly cpuSeconds: number | null;
  readonly residentBytes: number | null;
  readonly pagesHeld: number | null;
}

export interface StreamingRun {
  readonly samples: readonly Sample[];
  readonly result: StreamResult;
}

/** Rejects when the server refuses or breaks off. `onSample` shows each sample as it is taken. */
export async function runStreaming(client: Client, plan: StreamingPlan, onSample: (sample: Sample) => void): Promise<StreamingRun> {
  const prompt = Array.from({ length: plan.promptTokens }, (_, i) => plan.bookIds[i % plan.bookIds.length]!);
  const pending: Promise<Sample>[] = [];
  const begun = performance.now();
  let next = plan.every;
  const onPosition = (position: Position): void => {
    if (position.prefilled + position.generated < next) return;
    next = plan.every * (1 + Math.floor((position.prefilled + position.generated) / plan.every));
    pending.push(takeSample(client, plan.pid, position, begun).then((sample) => { onSample(sample); return sample; }));
  };
  const result = await client.stream('/v1/completions', {
    model: plan.model, prompt, max_tokens: plan.answerTokens, ignore_eos: true, temperature: 1, seed: plan.seed,
    return_progress: true, long_context: plan.longContext,
  }, { onPosition });
  const samples = await Promise.all(pending);
  if (result.error !== null) throw new Error(result.error);
  return { samples, result };
}

/** Time and usage are read at once; the pages come with the answer of /metrics. */
async function takeSample(client: Client, pid: number | null, position: Position, begun: number): Promise<Sample> {
  const seconds = (performance.now() - begun) / 1000;
  const usage = pid === null ? null : usageOf(pid);
  const metrics = parseMetrics((await client.get('/metrics')).text);
  return {
    ...position, seconds, cpuSeconds: usage?.cpuSeconds ?? null, residentBytes: usage?.residentBytes ?? null,
    pagesHeld: sumOf(metrics, 'longspan:pages', { state: 'held' }),
  };
}

/** What a stretch of the text took. */
export interface Stretch {
  readonly phase: 'prefill' | 'decode';
  /** Position in the text at its end. */
  readonly to: number;
  readonly msPerToken: number;
  readonly cpuMsPerToken: number | null;
}

/** Between neighbouring samples of one phase. Pure. */
export function stretchesOf(samples: readonly Sample[]): Stretch[] {
  return samples.slice(1).flatMap((sample, i): Stretch[] => {
    const before = samples[i]!;
    const phase = phaseOf(sample);
    const tokens = positionOf(sample) - positionOf(before);
    if (phase !== phaseOf(before) || tokens === 0) return [];
    const cpuMs = sample.cpuSeconds === null || before.cpuSeconds === null ? null : 1000 * (sample.cpuSeconds - before.cpuSeconds);
    return [{ phase, to: positionOf(sample), msPerToken: (1000 * (sample.seconds - before.seconds)) / tokens, cpuMsPerToken: cpuMs === null ? null : cpuMs / tokens }];
  });
}

export function positionOf({ prefilled, generated }: Position): number {
  return prefilled + generated;
}

function phaseOf({ generated }: Position): Stretch['phase'] {
  return generated === 0 ? 'prefill' : 'decode';
}
