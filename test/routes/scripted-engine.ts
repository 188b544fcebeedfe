/** An EngineClient whose events a test writes by hand, for exact bytes and for things that no engine does on time. */
import type { EngineGauges, GenerationRequest, SequenceEvent, SequenceMetrics, TokenLogprob } from '../../scheduler/messages.ts';
import { EngineUnavailableError } from '../../server/errors.ts';
import { GenerationStream } from '../../server/generation-stream.ts';
import type { EngineClient, EngineState, Generation } from '../../server/generation.ts';

export const plainMetrics: SequenceMetrics = {
  queueMs: 1, prefillMs: 2, firstTokenMs: 3, decodeMs: 4, longestGapMs: 5, promptTokens: 6, cachedTokens: 0, computedTokens: 6,
  recomputedTokens: 0, preemptions: 0, generatedTokens: 2, attendedTokensPerStep: 8, pagesReadPerStep: 9, draftedTokens: 0,
  acceptedTokens: 0, speculation: null, exactness: 'exact', exactnessReason: null,
};

type Ending = Omit<Extract<SequenceEvent, { type: 'finished' }>, 'type' | 'id'>;

/** One submitted request, from the engine's side. */
export class ScriptedRequest {
  readonly request: GenerationRequest;
  readonly stream: GenerationStream;
  readonly stopped: number[] = [];
  cancelled = false;

  constructor(request: GenerationRequest) {
    this.request = request;
    this.stream = new GenerationStream(request, {
      stopChoice: (choice) => {
        this.stopped.push(choice);
        queueMicrotask(() => { this.finish({ choice, reason: 'stop' }); });
      },
      cancelled: () => { this.cancelled = true; },
    });
  }

  push(event: SequenceEvent): void {
    this.stream.push(event);
  }

  start(cachedTokens = 0): void {
    this.push({ type: 'started', id: this.request.id, cachedTokens, queueMs: 1 });
  }

  tokens(tokens: readonly number[], { choice = 0, logprobs = null }: { choice?: number; logprobs?: readonly TokenLogprob[] | null } = {}): void {
    this.push({ type: 'tokens', id: this.request.id, choice, tokens, logprobs });
  }

  finish({ choice = 0, reason = 'length', stopToken = null, metrics = plainMetrics }: Partial<Ending> = {}): void {
    this.push({ type: 'finished', id: this.request.id, choice, reason, stopToken, metrics });
  }
}

export class ScriptedEngine implements EngineClient {
  state: EngineState = 'ready';
  readonly spec: NonNullable<EngineClient['spec']>;
  kvTokens = 100_000;
  gauges: EngineGauges = {
    runningSequences: 0, waitingSequences: 0, prefillBacklogTokens: 0, prefillTokensPerSecond: 0, decodeStepMs: 0,
    pagesTotal: 1000, pagesHeld: 0, pagesCached: 0, pagesFree: 1000,
  };
  queued = { requests: 0, tokens: 0 };
  readonly requests: ScriptedRequest[] = [];
  /** Called with every new request; a test answers it here. */
  readonly #answer: (request: ScriptedRequest) => void;

  constructor({ vocab, answer }: { vocab: number; answer: (request: ScriptedRequest) => void }) {
    this.spec = {
      engine: 'scripted', precision: 'none', layers: 2, kvHeads: 2, vocab, contextLength: 4096,
      slidingWindow: [null, null], headOrder: null, kvBytesPerToken: 1, keysDependOnPromptLength: false,
    };
    this.#answer = answer;
  }

  submit(request: Omit<GenerationRequest, 'id'>): Generation {
    if (this.state !== 'ready') throw new EngineUnavailableError(this.state);
    const scripted = new ScriptedRequest({ ...request, id: this.requests.length + 1 });
    this.requests.push(scripted);
    setImmediate(() => { this.#answer(scripted); });
    return scripted.stream;
  }

  onStep(): () => void {
    return () => undefined;
  }

  whenReady(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
