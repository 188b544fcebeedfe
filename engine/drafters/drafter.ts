/**
 * What every drafter is: it proposes the tokens that may follow a text, and says with which probabilities it
 * drew them, so that verify.ts can accept or resample. Nothing it proposes can change what the target's
 * distribution is, only how fast its tokens come. Knows no scheduler and no request. Called by the scheduler
 * before a step, and by middle-drafter.ts, which verifies another drafter's tokens itself.
 */
import type { Sampler } from '../sampler.ts';

/** One text to go on with. */
export interface DraftRequest {
  /** Stable per sequence: keys what a drafter keeps of it between calls. */
  readonly sequenceId: number;
  /** Prompt, generated tokens, and what higher levels have proposed since: its last token is in no KV memory. [n] */
  readonly text: Int32Array;
  /** Leading tokens of `text` that will never change; a later call may differ from there on. */
  readonly finalTokens: number;
  readonly promptTokens: number;
  /** Physical pages of the sequence, reserved as far as `text.length + maxTokens` positions. */
  readonly pageTable: Int32Array;
  /** Tokens wanted, at least 1. */
  readonly maxTokens: number;
  /** A fork of the sequence's sampler that stands at the end of `text`; the drafter may advance it. */
  readonly sampler: Sampler;
}

/** What is proposed. Empty when the drafter has nothing to say, or is not ready yet. */
export interface Draft {
  /** [m], m <= maxTokens */
  readonly tokens: Int32Array;
  /**
   * Distribution that tokens[i] was drawn from, given all before it; null when it was not drawn: the whole
   * mass is on the token. [m] of [vocab]
   */
  readonly distributions: readonly (Float64Array | null)[];
}

export interface Drafter {
  /** One draft for each request, in order. Requests go through the drafter's passes together. Not reentrant. */
  draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]>;
  /** Drops what is kept of a sequence, pages included. Idempotent. */
  forget(sequenceId: number): void;
}
