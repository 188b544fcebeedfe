/**
 * One generation: a prompt, the tokens that follow it, and how much of both is in KV memory. Geometry is
 * derived from two numbers, `length` and `computed`, never stored twice. Decides nothing: live-sequences.ts
 * moves it between its states, scheduler.ts plans it, commit.ts advances it.
 *
 *   0 ........ computed ............. promptTokens ........... length
 *   | in KV memory | still to be computed                     |
 *   | prompt                          | generated             |
 */
import type { Sampler } from '../engine/sampler.ts';
import type { SequencePages } from '../kvcache/kv-cache.ts';
import type { PageListPolicy } from '../kvcache/page-lists/page-list.ts';
import type { GenerationRequest } from './messages.ts';
import { SequenceRecord } from './sequence-record.ts';
import { SpeculationRecord } from './speculation-record.ts';

/** One accepted request: what its choices share. */
export interface Submission {
  readonly request: GenerationRequest;
  readonly policy: PageListPolicy;
  /** Prefix pages are shared within one namespace only. */
  readonly namespace: string;
  /** Order of arrival. */
  readonly arrival: number;
  readonly submittedMs: number;
  /** When its first chunk was scheduled; null before. */
  startedMs: number | null;
}

export interface SequenceOptions {
  /** The engine's sequenceId. */
  readonly id: number;
  readonly submission: Submission;
  readonly choice: number;
  readonly sampler: Sampler;
  /** The choice that prefills the prompt for this one; null for itself. */
  readonly leader: Sequence | null;
}

export class Sequence {
  readonly id: number;
  readonly submission: Submission;
  readonly choice: number;
  readonly sampler: Sampler;
  readonly leader: Sequence | null;
  readonly record = new SequenceRecord();
  /** null when no drafting was asked for. */
  readonly speculation: SpeculationRecord | null;
  /** Tokens of the prompt from promptLogprobsFrom on whose log-probabilities were told, if they are asked for. */
  numScored = 0;
  state: 'waiting' | 'running' | 'ended' = 'waiting';
  /** null while waiting. */
  pages: SequencePages | null = null;
  computed = 0;
  /** The most that `computed` ever was: computing below it again is recomputation. */
  highWater = 0;
  /** `length` when it last began to run; a preempted sequence is spared until it has made some progress. */
  resumedLength: number;
  /** Rows of KV memory that would have to be free or cache for it to start, when it last could not: those it lacked, and known ones that it would wake. */
  wantedRows = 0;
  #text: Int32Array;
  #length: number;
  /** The first #length of #text: views are made once a token, not each time that one is asked for. */
  #view: Int32Array;

  constructor({ id, submission, choice, sampler, leader }: SequenceOptions) {
    this.id = id;
    this.submission = submission;
    this.choice = choice;
    this.sampler = sampler;
    this.leader = leader;
    this.speculation = submission.request.speculation.speculation === 'off' ? null : new SpeculationRecord();
    this.#text = submission.request.promptIds;
    this.#view = this.#text;
    this.#length = this.#text.length;
    this.resumedLength = this.#length;
  }

  get request(): GenerationRequest {
    return this.submission.request;
  }

  get policy(): PageListPolicy {
    return this.submission.policy;
  }

  /** Prompt and generated tokens: a view, valid until the next append. [length] */
  get text(): Int32Array {
    return this.#view;
  }

  get length(): number {
    return this.#length;
  }

  get promptTokens(): number {
    return this.request.promptIds.length;
  }

  get generated(): number {
    return this.#length - this.promptTokens;
  }

  /** Tokens to compute before the next one can be drawn. */
  get remaining(): number {
    return this.#length - this.computed;
  }

  /** Only the token that was drawn last is left to compute. */
  get isDecoding(): boolean {
    return this.generated > 0 && this.remaining === 1;
  }

  get hasPrefilled(): boolean {
    return this.highWater >= this.promptTokens;
  }

  /** Waits for its leader, so that the prompt is computed once. */
  get isBlocked(): boolean {
    return this.leader !== null && this.leader.state !== 'ended' && !this.leader.hasPrefilled;
  }

  /** Where prefill ends: what lies beyond was computed by decode and is recomputed likewise. */
  get prefillEnd(): number {
    return this.policy.sameInDecode || this.policy.isExact(this.#length) ? this.#length : this.promptTokens;
  }

  /** Leading tokens in KV memory whose keys and values are what anyone's prefill would compute. */
  get shareableTokens(): number {
    const { sameInDecode, spanTokens } = this.policy;
    const shareable = sameInDecode || this.policy.isExact(this.computed) ? this.computed : Math.min(this.computed, this.promptTokens);
    return shareable - (shareable % spanTokens);
  }

  /** Whether it may be preempted without undoing what little it did since the last time. */
  hasProgressed(minTokens: number): boolean {
    return this.record.preemptions === 0 || this.#length - this.resumedLength >= minTokens;
  }

  /** The prompt's array belongs to all choices, so the first token generated moves the text to an array of its own. */
  append(token: number): void {
    if (this.#length === this.#text.length) {
      const grown = new Int32Array(Math.ceil(this.#length * 1.25) + 256);
      grown.set(this.#text);
      this.#text = grown;
    }
    this.#text[this.#length++] = token;
    this.#view = this.#text.subarray(0, this.#length);
  }
}
