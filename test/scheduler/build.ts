/**
 * What scheduler tests share: a loop over a fake engine, driven step by step, with everything it sent
 * gathered by request.
 */
import { FakeEngine, type FakeEngineOptions } from '../../engine/fake/fake-engine.ts';
import type { Chunk, Engine } from '../../engine/engine.ts';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import { Loop, type LoopOptions } from '../../scheduler/loop.ts';
import { NO_SPECULATION, type FromEngine, type GenerationRequest, type SequenceEvent, type SequenceMetrics, type StepCounters } from '../../scheduler/messages.ts';

export const dense: AttentionSettings = {
  attention: 'dense', tokenBudget: 512, sinkTokens: 64, localTokens: 128, streamingHeads: 0,
  selectionInterval: 4, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};

export const greedy: GenerationRequest['sampling'] = {
  temperature: 0, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [], seed: 0,
};

export function request(id: number, changes: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    id, tenant: 'a', promptIds: prompt(id, 10), choices: 1, maxTokens: 8, minTokens: 0, stopTokenIds: [], sampling: greedy,
    logprobs: null, promptLogprobsFrom: null, attention: dense, speculation: NO_SPECULATION, priority: 0, deadlineMs: null, cacheSalt: '', progress: false,
    ...changes,
  };
}

/** Drafts wherever it can; rapid with the draft model, if there is one. */
export function drafting(changes: Partial<GenerationRequest['speculation']>): GenerationRequest['speculation'] {
  return { ...NO_SPECULATION, speculation: 'ngram', draftTokens: 6, draftBudget: 320, draftLevel: changes.speculation === 'rapid' ? 'auto' : 'none', force: true, ...changes };
}

/** A prompt that `seed` decides. */
export function prompt(seed: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (Math.imul(seed * 7919 + i + 1, 0x9e3779b1) >>> 8) % 1000);
}

export interface Clock {
  ms: number;
}

/** `engine`, with steps that take time by their tokens, so that the scheduler has costs to learn. */
export function timed(engine: Engine, clock: Clock, msPerToken = 0.05): Engine {
  return {
    spec: engine.spec,
    pages: engine.pages,
    pageIds: engine.pageIds,
    release: (page, heads) => { engine.release(page, heads); },
    truncate: (sequence, length) => { engine.truncate(sequence, length); },
    forget: (id) => { engine.forget(id); },
    close: () => engine.close(),
    run: (step) => {
      clock.ms += 1 + msPerToken * step.reduce((sum, chunk) => sum + chunk.tokens.length, 0);
      return engine.run(step);
    },
  };
}

export interface Bench {
  readonly loop: Loop;
  readonly engine: Engine;
  /** All events so far. */
  readonly events: SequenceEvent[];
  readonly counters: StepCounters[];
  /** The loop's clock: change it to let time pass. */
  readonly clock: Clock;
  submit(...requests: GenerationRequest[]): void;
  /** Steps until nothing is left to do. */
  finish(): Promise<void>;
  tokensOf(id: number, choice?: number): number[];
  endOf(id: number, choice?: number): SequenceEvent & { type: 'finished' | 'failed' };
}

export function bench(options: Partial<LoopOptions> & { engine?: Engine; draftEngine?: Engine; clock?: Clock } & Partial<FakeEngineOptions> = {}): Bench {
  const engine = options.engine ?? new FakeEngine({ vocab: 1000, ...options, pages: options.pages ?? 256 });
  const events: SequenceEvent[] = [];
  const counters: StepCounters[] = [];
  const clock = options.clock ?? { ms: 0 };
  const loop = new Loop({
    engine,
    draftEngine: options.draftEngine ?? null,
    options: { maxModelLen: 100_000, maxSequences: 64, stepTokens: 512, targetGapMs: 100, prefixCache: true, ...options },
    send: (message: FromEngine) => {
      if (message.type !== 'step') return;
      events.push(...message.events);
      counters.push(message.counters);
    },
    now: () => clock.ms,
  });
  const of = (id: number, choice: number) => events.filter((event) => event.id === id && (!('choice' in event) || event.choice === choice));
  return {
    loop, engine, events, counters, clock,
    submit: (...requests) => { for (const each of requests) loop.receive({ type: 'submit', request: each }); },
    async finish() {
      for (let steps = 0; !loop.isIdle; steps++) {
        if (steps > 100_000) throw new Error(`still busy after ${steps} steps`);
        await loop.step();
      }
    },
    tokensOf: (id, choice = 0) => of(id, choice).flatMap((event) => (event.type === 'tokens' ? event.tokens : [])),
    endOf(id, choice = 0) {
      const ends = of(id, choice).filter((event) => event.type === 'finished' || event.type === 'failed');
      if (ends.length !== 1) throw new Error(`request ${id} choice ${choice} ended ${ends.length} times`);
      return ends[0] as SequenceEvent & { type: 'finished' | 'failed' };
    },
  };
}

/** Runs chunks on a fake engine and remembers them. */
export function recording(pages = 256, options: Partial<ConstructorParameters<typeof FakeEngine>[0]> = {}): { engine: Engine; steps: Chunk[][] } {
  const steps: Chunk[][] = [];
  const inner = new FakeEngine({ vocab: 1000, pages, ...options });
  const engine = timed({ ...timed(inner, { ms: 0 }), run: (step) => { steps.push([...step]); return inner.run(step); } }, { ms: 0 });
  return { engine, steps };
}

export function metricsOf(busy: Bench, id: number, choice = 0): SequenceMetrics {
  const end = busy.endOf(id, choice);
  if (end.type !== 'finished') throw new Error(`request ${id} failed: ${end.message}`);
  return end.metrics;
}

export function typesOf(busy: Bench, id: number): string[] {
  return busy.events.filter((event) => event.id === id).map(({ type }) => type);
}

/** The tokens of a request when nothing else runs and memory is plenty. */
export async function alone(each: GenerationRequest): Promise<number[]> {
  const quiet = bench();
  quiet.submit(each);
  await quiet.finish();
  return quiet.tokensOf(each.id);
}
