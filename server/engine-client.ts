/**
 * EngineClient over any transport: numbers the requests, hands events to their generations, counts what waits, and
 * fails what runs when the engine side dies (engine-supervisor.ts starts it again). Knows no processes, no text and
 * no HTTP. Made by main.ts.
 */
import type { EngineGauges, EngineSpec, FromEngine, GenerationRequest, SequenceEvent, StepCounters } from '../scheduler/messages.ts';
import { EngineSupervisor } from './engine-supervisor.ts';
import type { StartEngine } from './engine-transport.ts';
import { EngineUnavailableError } from './errors.ts';
import type { EngineClient, EngineState, Generation } from './generation.ts';
import { GenerationStream } from './generation-stream.ts';

export interface EngineClientOptions {
  readonly start: StartEngine;
  /** See SupervisorOptions. */
  readonly restartDelayMs?: number;
}

type StepListener = (counters: StepCounters, gauges: EngineGauges) => void;
type DownListener = (reason: string, state: 'restarting' | 'closed') => void;

const noGauges: EngineGauges = {
  runningSequences: 0, waitingSequences: 0, prefillBacklogTokens: 0, prefillTokensPerSecond: 0, decodeStepMs: 0,
  pagesTotal: 0, pagesHeld: 0, pagesCached: 0, pagesFree: 0,
};

export class SupervisedEngine implements EngineClient {
  readonly #supervisor: EngineSupervisor;
  readonly #streams = new Map<number, GenerationStream>();
  readonly #stepListeners = new Set<StepListener>();
  readonly #downListeners = new Set<DownListener>();
  readonly #queued = { requests: 0, tokens: 0 };
  #spec: EngineSpec | null = null;
  #kvTokens = 0;
  #gauges = noGauges;
  #lastId = 0;

  constructor({ start, restartDelayMs = 100 }: EngineClientOptions) {
    this.#supervisor = new EngineSupervisor({
      start,
      restartDelayMs,
      onMessage: (message) => { this.#receive(message); },
      onDown: (reason, state) => { this.#down(reason, state); },
    });
    this.#supervisor.start();
  }

  get state(): EngineState {
    return this.#supervisor.state;
  }

  get spec(): EngineSpec | null {
    return this.#spec;
  }

  get kvTokens(): number {
    return this.#kvTokens;
  }

  get gauges(): EngineGauges {
    return this.#gauges;
  }

  get queued(): { readonly requests: number; readonly tokens: number } {
    return this.#queued;
  }

  submit(request: Omit<GenerationRequest, 'id'>): Generation {
    if (this.state !== 'ready') throw new EngineUnavailableError(this.state);
    const numbered: GenerationRequest = { ...request, id: ++this.#lastId };
    const stream = new GenerationStream(numbered, {
      stopChoice: (choice) => { this.#supervisor.send({ type: 'abort', id: numbered.id, choice, reason: 'stop' }); },
      cancelled: () => { this.#cancelled(stream); },
    });
    this.#streams.set(stream.id, stream);
    this.#countQueued(stream, 1);
    this.#supervisor.send({ type: 'submit', request: numbered });
    return stream;
  }

  onStep(listener: StepListener): () => void {
    this.#stepListeners.add(listener);
    return () => { this.#stepListeners.delete(listener); };
  }

  /** Called when the engine side died; 'closed' says that it is not started again. `reason` is half a sentence. */
  onDown(listener: DownListener): void {
    this.#downListeners.add(listener);
  }

  whenReady(): Promise<void> {
    return this.#supervisor.whenReady();
  }

  close(): Promise<void> {
    return this.#supervisor.close();
  }

  #receive(message: FromEngine): void {
    if (message.type === 'ready') {
      this.#spec = message.spec;
      this.#kvTokens = message.kvTokens;
      this.#gauges = message.gauges;
    } else if (message.type === 'step') {
      this.#gauges = message.gauges;
      for (const event of message.events) this.#deliver(event);
      for (const listener of this.#stepListeners) listener(message.counters, message.gauges);
    }
  }

  #deliver(event: SequenceEvent): void {
    const stream = this.#streams.get(event.id);
    if (stream === undefined) return;
    if (!stream.started) this.#countQueued(stream, -1);
    stream.push(event);
    if (stream.over) this.#streams.delete(stream.id);
  }

  #cancelled(stream: GenerationStream): void {
    if (!stream.started) this.#countQueued(stream, -1);
    this.#streams.delete(stream.id);
    this.#supervisor.send({ type: 'abort', id: stream.id, choice: null, reason: 'client' });
  }

  #down(reason: string, state: 'restarting' | 'closed'): void {
    this.#queued.requests = this.#queued.tokens = 0;
    this.#gauges = noGauges;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.fail(state === 'closed' ? 'shutting_down' : 'engine_failed', reason);
    for (const listener of this.#downListeners) listener(reason, state);
  }

  #countQueued(stream: GenerationStream, sign: 1 | -1): void {
    this.#queued.requests += sign;
    this.#queued.tokens += sign * stream.promptTokens;
  }
}
