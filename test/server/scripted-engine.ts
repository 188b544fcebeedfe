/** An engine side whose every message the test writes, over the transport interface that the process has. */
import type { EngineListeners, EngineTransport, StartEngine } from '../../server/engine-transport.ts';
import { SupervisedEngine } from '../../server/engine-client.ts';
import {
  NO_SPECULATION, type EngineGauges, type EngineSpec, type FromEngine, type GenerationRequest, type SequenceEvent, type SequenceMetrics,
  type StepCounters, type ToEngine,
} from '../../scheduler/messages.ts';

export const spec: EngineSpec = {
  engine: 'scripted', precision: 'fp32', layers: 1, kvHeads: 1, vocab: 8192, contextLength: 4096,
  slidingWindow: [null], headOrder: null, keysDependOnPromptLength: false, kvBytesPerToken: 4,
};

export const gauges: EngineGauges = {
  runningSequences: 1, waitingSequences: 2, prefillBacklogTokens: 300, prefillTokensPerSecond: 1000, decodeStepMs: 5,
  pagesTotal: 100, pagesHeld: 25, pagesCached: 15, pagesFree: 60,
};

export const counters: StepCounters = {
  stepMs: 5, deviceMs: 4, prefillTokens: 64, decodeTokens: 1, recomputedTokens: 7, prefixQueryTokens: 128, prefixHitTokens: 64,
  preemptions: 1, pagesRead: 10, pagesScored: 20, attendedTokens: 640, draftPasses: 2, draftedTokens: 8, acceptedTokens: 5,
};

export const sequenceMetrics: SequenceMetrics = {
  queueMs: 10, prefillMs: 20, firstTokenMs: 31, decodeMs: 40, longestGapMs: 9, promptTokens: 3, cachedTokens: 0, computedTokens: 3,
  recomputedTokens: 0, preemptions: 0, generatedTokens: 5, attendedTokensPerStep: 5, pagesReadPerStep: 1, draftedTokens: 0,
  acceptedTokens: 0, speculation: null, exactness: 'exact', exactnessReason: null,
};

/** One life of the engine side. */
export class ScriptedLife implements EngineTransport {
  readonly sent: ToEngine[] = [];
  killed = false;
  readonly #listeners: EngineListeners;

  constructor(listeners: EngineListeners) {
    this.#listeners = listeners;
  }

  send(message: ToEngine): void {
    this.sent.push(message);
    if (message.type === 'close') this.die('closed');
  }

  kill(): void {
    this.killed = true;
    this.die('killed');
  }

  say(message: FromEngine): void {
    this.#listeners.onMessage(message);
  }

  ready(): void {
    this.say({ type: 'ready', spec, kvTokens: 6400, gauges });
  }

  step(...events: SequenceEvent[]): void {
    this.say({ type: 'step', events, gauges, counters });
  }

  die(reason: string): void {
    this.#listeners.onExit(reason);
  }
}

export interface Scripted {
  readonly engine: SupervisedEngine;
  /** All lives so far; the last one is current. */
  readonly lives: readonly ScriptedLife[];
  readonly life: () => ScriptedLife;
}

/** Restarts come after a millisecond. */
export function scripted(): Scripted {
  const lives: ScriptedLife[] = [];
  const start: StartEngine = (listeners) => {
    const life = new ScriptedLife(listeners);
    lives.push(life);
    return life;
  };
  return { engine: new SupervisedEngine({ start, restartDelayMs: 1 }), lives, life: () => lives.at(-1)! };
}

export function request(changes: Partial<GenerationRequest> = {}): Omit<GenerationRequest, 'id'> {
  return {
    tenant: 'default', promptIds: Int32Array.of(1, 2, 3), choices: 1, maxTokens: 5, minTokens: 0, stopTokenIds: [],
    sampling: {
      temperature: 0, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [], seed: null,
    },
    logprobs: null, promptLogprobsFrom: null,
    attention: {
      attention: 'dense', tokenBudget: 4096, sinkTokens: 128, localTokens: 1024, streamingHeads: 0, selectionInterval: 4, selectionPerQueryHead: false,
      renumberPositions: false, sparsePrefill: true,
    },
    speculation: NO_SPECULATION, priority: 0, deadlineMs: null, cacheSalt: '', progress: false, ...changes,
  };
}

export const started = (id: number): SequenceEvent => ({ type: 'started', id, cachedTokens: 0, queueMs: 1 });
export const tokens = (id: number, choice: number, ...ids: number[]): SequenceEvent => ({ type: 'tokens', id, choice, tokens: ids, logprobs: null });
export const finished = (id: number, choice = 0): SequenceEvent =>
  ({ type: 'finished', id, choice, reason: 'length', stopToken: null, metrics: sequenceMetrics });

export async function readAll(events: AsyncIterable<SequenceEvent>): Promise<SequenceEvent[]> {
  const all: SequenceEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** What ended each choice, in order. */
export function endings(events: readonly SequenceEvent[]): string[] {
  return events.flatMap((event) => {
    if (event.type === 'finished') return [`${event.choice} ${event.reason}`];
    return event.type === 'failed' ? [`${event.choice} ${event.code}`] : [];
  });
}
