/**
 * What the two endpoints shape differently: the answer's object, and the entries of `choices` in a stream's chunks.
 * Entries are built as JSON text around JSON.stringify(text), since a stream makes one for every token. Implemented
 * by chat-format.ts and completion-format.ts, called by generate.ts and stream.ts.
 */
import type { Answer, PromptRun } from './answer.ts';
import type { Choice, Delta } from './choice.ts';
import type { Usage } from './usage.ts';

/** Equal in every chunk of an answer. */
export interface AnswerHead {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** Known when all choices have ended. */
export interface Closing {
  readonly usage: Usage;
  readonly metrics: object;
}

export interface AnswerFormat {
  /** `object` of a chunk. */
  readonly chunkObject: string;
  /** The answer of a request without stream. */
  body(head: AnswerHead, answer: Answer, closing: Closing): object;
  /** The entry before a choice's first text (its role, the echoed prompt); null if there is none. */
  opening(choice: Choice, run: PromptRun): string | null;
  /** Members beside `choices` in the chunk of the opening: '' or `,"name":value`. */
  openingMembers(run: PromptRun): string;
  /** The entry with what a choice gained. */
  delta(choice: Choice, delta: Delta): string;
  /** The entry that says how a choice ended. */
  ending(choice: Choice): string;
}

export interface FormatOptions {
  /** The request asked for log-probabilities. */
  readonly logprobs: boolean;
  /** return_token_ids */
  readonly tokenIds: boolean;
}
