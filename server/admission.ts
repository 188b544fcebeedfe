/**
 * Who may wait: a bounded queue, by requests and by prompt tokens. A place is reserved before the prompt is tokenised
 * (from an estimate, since tokenising a prompt that is then refused is what overload must not pay for) and corrected
 * after. Says how long the backlog takes, in Retry-After and against deadlines. Knows no HTTP and no text. Called by
 * server/generate/generate.ts.
 */
import type { Config } from '../config/options.ts';
import { ApiError, EngineUnavailableError } from './errors.ts';
import type { EngineClient } from './generation.ts';

type Overload = 'queue_full' | 'token_queue_full' | 'deadline_unreachable';
export type RefusalReason = Overload | 'engine_unavailable';

export interface AdmissionOptions {
  readonly engine: Pick<EngineClient, 'state' | 'queued' | 'gauges'>;
  readonly limits: Pick<Config, 'maxQueuedRequests' | 'maxQueuedTokens'>;
  readonly onRefused: (reason: RefusalReason) => void;
}

/** What asks to wait: one HTTP request. */
export interface Demand {
  /** Its prompts; each is a request to the engine. */
  readonly prompts: number;
  /** Prompt tokens, estimated. */
  readonly tokens: number;
  readonly deadlineMs: number | null;
}

/** A place in the queue. Held until the prompts are submitted (the engine counts them from then on) or given up. */
export interface Place {
  /** The prompts are tokenised: replaces the estimate. Throws deadline_unreachable when `tokens` cannot be computed in time. */
  settle(tokens: number, deadlineMs: number | null): void;
  /** Idempotent. */
  release(): void;
}

const MIN_WAIT_MS = 1000;
const MAX_WAIT_MS = 600_000;
/** Assumed until the engine has measured its own; only Retry-After depends on it. */
const UNMEASURED_TOKENS_PER_SECOND = 2000;

export class Admission {
  readonly #options: AdmissionOptions;
  readonly #held = { prompts: 0, tokens: 0 };

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Throws engine_unavailable (503), queue_full, token_queue_full or deadline_unreachable (429). */
  reserve(demand: Demand): Place {
    this.#refuseIfDown();
    this.#refuseIfFull(demand);
    this.#refuseIfLate(0, demand.deadlineMs);
    return this.#hold(demand);
  }

  /** Milliseconds until the work that waits now is prefilled; null until the engine has measured its speed. */
  backlogMs(extraTokens: number): number | null {
    const rate = this.#options.engine.gauges.prefillTokensPerSecond;
    return rate > 0 ? ((this.#backlogTokens() + extraTokens) / rate) * 1000 : null;
  }

  #hold(demand: Demand): Place {
    const held = this.#held;
    const mine = { prompts: demand.prompts, tokens: demand.tokens };
    const add = (prompts: number, tokens: number): void => {
      held.prompts += prompts;
      held.tokens += tokens;
    };
    add(mine.prompts, mine.tokens);
    return {
      settle: (tokens, deadlineMs) => {
        add(0, -mine.tokens);
        mine.tokens = 0;
        this.#refuseIfLate(tokens, deadlineMs);
        mine.tokens = tokens;
        add(0, tokens);
      },
      release: () => {
        add(-mine.prompts, -mine.tokens);
        mine.prompts = mine.tokens = 0;
      },
    };
  }

  #refuseIfDown(): void {
    const { engine, onRefused } = this.#options;
    if (engine.state === 'ready') return;
    onRefused('engine_unavailable');
    throw new EngineUnavailableError(engine.state);
  }

  /** A prompt longer than the token queue is let in when nothing else waits: else it could never run. */
  #refuseIfFull(demand: Demand): void {
    const { engine: { queued }, limits } = this.#options;
    const requests = queued.requests + this.#held.prompts;
    const tokens = queued.tokens + this.#held.tokens + demand.tokens;
    if (requests + demand.prompts > limits.maxQueuedRequests) {
      throw this.#refusal('queue_full', { got: requests, limit: limits.maxQueuedRequests });
    }
    if (requests > 0 && tokens > limits.maxQueuedTokens) {
      throw this.#refusal('token_queue_full', { got: tokens, limit: limits.maxQueuedTokens });
    }
  }

  #refuseIfLate(tokens: number, deadlineMs: number | null): void {
    const expectedMs = this.backlogMs(tokens);
    if (deadlineMs === null || expectedMs === null || expectedMs <= deadlineMs) return;
    throw this.#refusal('deadline_unreachable', { deadlineMs, expectedMs: Math.ceil(expectedMs) });
  }

  #refusal(reason: Overload, values: Readonly<Record<string, number>>): ApiError {
    const retryAfterMs = this.#retryAfterMs();
    this.#options.onRefused(reason);
    return new ApiError(reason, { ...values, seconds: Math.ceil(retryAfterMs / 1000) }, { retryAfterMs });
  }

  #retryAfterMs(): number {
    const expected = this.backlogMs(0) ?? (this.#backlogTokens() / UNMEASURED_TOKENS_PER_SECOND) * 1000;
    return Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, Math.ceil(expected)));
  }

  /** The engine's gauge is one step old: what was submitted since stands in `queued`. */
  #backlogTokens(): number {
    const { gauges, queued } = this.#options.engine;
    return Math.max(gauges.prefillBacklogTokens, queued.tokens) + this.#held.tokens;
  }
}
