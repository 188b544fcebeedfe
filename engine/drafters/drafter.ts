/**
 * What every drafter is: it proposes the tokens that may follow a text, and says with which probabilities it
 * drew them, so that verify.ts can accept or resample. Nothing it proposes can change what the target's
 * distribution is, only how fast its tokens come. Knows no scheduler and no request. Called by the scheduler
 * before a step, and by middle-drafter.ts, which verifies another drafter's tokens itself.
 */
import type { Sampler } from '../sampler.ts';

/** When a drafter whose tokens cost passes is to stop: a draft of which an early token is refused is in vain behind it. */
export interface Patience {
  /** Probability that a token is accepted, by the drafter's classes. */
  readonly acceptances: readonly number[];
  /** Least probability that all tokens so far are accepted. */
  readonly least: number;
}

/** One text to go on with. */
export interface DraftRequest {
  /** Stable per sequence, 0 or more: keys what a drafter keeps of it between calls. */
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
  /** What a drafter with a text of its own reads before the generated tokens; empty when there is none. */
  readonly draftPrompt: Int32Array;
  /** null: a draft has as many tokens as are wanted, if there are as many. */
  readonly patience: Patience | null;
  /** A fork of the sequence's sampler that stands at the end of `text`; the drafter may advance it. */
  readonly sampler: Sampler;
}

/** What is known of a request before it is decided whether to draft for it, and how much. */
export type ForeseenText = Omit<DraftRequest, 'pageTable' | 'sampler' | 'patience'>;

/** What a level below the one that is asked did for a draft. */
export interface LevelCount {
  readonly level: string;
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
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
  /** How sure the drafter is of each token: an index into its `firstAcceptances`. [m] */
  readonly classes: Uint8Array;
  /** Lowest first; empty for a drafter that verifies nobody. */
  readonly below: readonly LevelCount[];
  /** Tokens of texts of its own that the drafter read before it drafted. */
  readonly readTokens: number;
  /** Why it is empty, for the reader of the metrics; null when it is not. */
  readonly reason: string | null;
}

export interface Drafter {
  /** Its name in the metrics: 'ngram', 'model', 'middle' or 'rapid'. */
  readonly level: string;
  /**
   * Share of its tokens that may be accepted before any was verified, for each class of how sure it is of them. At least
   * one class.
   */
  readonly firstAcceptances: readonly number[];
  /** The draft that it would make, where that costs no pass of a model; null where it does. */
  foresee(text: ForeseenText): Draft | null;
  /** Tokens of a text of its own that it has to read before it can draft; 0 when it has none, or can do without. */
  unread(text: ForeseenText): number;
  /**
   * One draft for each request, in order. Requests go through the drafter's passes together. What it wrote to the
   * sequences' own pages is taken back before it returns. Not reentrant.
   */
  draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]>;
  /** Drops what is kept of a sequence, pages included. Idempotent. */
  forget(sequenceId: number): void;
  /** Pages of the target's KV memory that it holds for texts of its own; it can do without them. */
  readonly heldPages: number;
  /** Gives all of them back; drafting begins anew. */
  releasePages(): void;
}

const NONE = new Int32Array(0);

/** Nothing to propose, and why. */
export function emptyDraft(reason: string, readTokens = 0): Draft {
  return { tokens: NONE, distributions: [], classes: new Uint8Array(0), below: [], readTokens, reason };
}

/** Whether a draft with tokens of these classes is worth a token more. */
export function goesOn(patience: Patience | null, classes: readonly number[]): boolean {
  if (patience === null) return true;
  return classes.reduce((reached, sureness) => reached * patience.acceptances[sureness]!, 1) >= patience.least;
}

/** Its first `count` tokens. */
export function headOf(draft: Draft, count: number): Draft {
  const { tokens, distributions, classes } = draft;
  return { ...draft, tokens: tokens.subarray(0, count), distributions: distributions.slice(0, count), classes: classes.subarray(0, count) };
}
