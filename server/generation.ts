/**
 * The HTTP side's view of the engine: submit a request, read its events. Knows token ids, no text and no
 * HTTP. engine-client.ts implements it over a child process (or in process, in tests); routes/ call it.
 */
import type { EngineGauges, EngineSpec, GenerationRequest, SequenceEvent, StepCounters } from '../scheduler/messages.ts';

/**
 * One submitted request. Iterating yields its events in order and ends after the last choice has finished
 * or failed. Exactly one `finished` or `failed` per choice, also when the engine process dies (code
 * 'engine_failed') or the server shuts down.
 */
export interface Generation extends AsyncIterable<SequenceEvent> {
  readonly id: number;
  /** Ends one choice with reason 'stop': a stop string was found in its text. Its `finished` event follows. */
  stopChoice(choice: number): void;
  /** The reader has gone: iteration ends at once, the engine drops the sequences before its next step. Idempotent. */
  cancel(): void;
}

export type EngineState = 'starting' | 'ready' | 'restarting' | 'closed';

export interface EngineClient {
  readonly state: EngineState;
  /** null until the engine was ready once. */
  readonly spec: EngineSpec | null;
  /** KV memory in tokens; 0 until the engine was ready once. */
  readonly kvTokens: number;
  readonly gauges: EngineGauges;
  /** Requests submitted and not yet started, and their prompt tokens: the queue that admission bounds. */
  readonly queued: { readonly requests: number; readonly tokens: number };
  /** Throws an EngineUnavailableError unless state is 'ready'. */
  submit(request: Omit<GenerationRequest, 'id'>): Generation;
  /** Called after every step with its counters and gauges (metrics). Returns the unsubscriber. */
  onStep(listener: (counters: StepCounters, gauges: EngineGauges) => void): () => void;
  /** Resolves when state becomes 'ready'; rejects with the reason when the engine cannot be built at all. */
  whenReady(): Promise<void>;
  close(): Promise<void>;
}
