/**
 * What follows from a step that was run: chunks count as computed, full pages are shared, pages read no
 * more go back, tokens are drawn, and sequences that have all they asked for end. Knows no queue and does
 * no planning. Called by loop.ts after each step.
 */
import type { Engine, StepResult } from '../engine/engine.ts';
import { scoreToken } from '../engine/logprobs.ts';
import type { KvCache } from '../kvcache/kv-cache.ts';
import type { LiveSequences } from './live-sequences.ts';
import type { TokenLogprob } from './messages.ts';
import type { Outbox } from './outbox.ts';
import type { Sequence } from './sequence.ts';
import type { PlannedChunk } from './step-plan.ts';
import type { Tenants } from './tenants.ts';

export interface CommitParts {
  readonly engine: Engine;
  readonly kv: KvCache;
  readonly live: LiveSequences;
  readonly tenants: Tenants;
  readonly outbox: Outbox;
  /** Longest text of a sequence that keeps all its pages. */
  readonly maxModelLen: number;
}

/** Virtual tokens of fair queueing: a decoded token costs about twice a prefilled one (VTC's weights). */
const SERVICE = { prefill: 1, decode: 2 };

export class Commit {
  readonly #parts: CommitParts;
  readonly #vocab: number;

  constructor(parts: CommitParts) {
    this.#parts = parts;
    this.#vocab = parts.engine.spec.vocab;
  }

  step(plan: readonly PlannedChunk[], result: StepResult, nowMs: number): void {
    plan.forEach((chunk, i) => {
      const { sequence } = chunk;
      if (sequence.state === 'ended') return;
      this.#count(chunk);
      this.#advance(chunk);
      const logits = result.logits[i] ?? null;
      if (logits !== null) this.#read(chunk, logits, nowMs);
      const isPrefillEnd = chunk.phase === 'prefill' && plan[i + 1]?.sequence !== sequence;
      if (isPrefillEnd && sequence.request.progress && sequence.leader === null) this.#reportProgress(sequence, nowMs);
    });
  }

  #advance({ sequence, tokens }: PlannedChunk): void {
    const { kv } = this.#parts;
    sequence.computed += tokens.length;
    sequence.highWater = Math.max(sequence.highWater, sequence.computed);
    kv.commit(sequence.pages!, sequence.text, sequence.shareableTokens);
    kv.releaseRange(sequence.pages!, sequence.policy.releasablePages(sequence.computed));
  }

  /** Before the sequence advances: what lies below its high water is computed again. */
  #count({ sequence, tokens, start, phase, reads }: PlannedChunk): void {
    const { outbox, tenants } = this.#parts;
    const recomputed = Math.max(0, Math.min(start + tokens.length, sequence.highWater) - start);
    sequence.record.recomputedTokens += recomputed;
    outbox.count('recomputedTokens', recomputed);
    outbox.count(phase === 'decode' ? 'decodeTokens' : 'prefillTokens', tokens.length);
    tenants.charge(sequence.request.tenant, SERVICE[phase] * tokens.length);
    if (phase === 'prefill' || recomputed > 0) return;
    outbox.count('attendedTokens', reads.tokens);
    sequence.record.decodeStep(reads);
  }

  /** A sequence whose logits are rubbish fails alone; the error is its reader's answer. */
  #read(chunk: PlannedChunk, logits: Float32Array, nowMs: number): void {
    const { sequence } = chunk;
    try {
      if (chunk.logits === 'all') this.#scorePrompt(chunk, logits);
      if (sequence.remaining === 0) this.#next(sequence, logits.subarray(logits.length - this.#vocab), nowMs);
    } catch (error) {
      if (sequence.state === 'ended') throw error;
      this.#parts.live.fail(sequence, 'engine_failed', error instanceof Error ? error.message : String(error));
    }
  }

  /** Row i tells of the token after position start + i. */
  #scorePrompt({ sequence, start }: PlannedChunk, logits: Float32Array): void {
    const { promptScores, promptTokens, request } = sequence;
    const numRows = logits.length / this.#vocab;
    const next = request.promptLogprobsFrom! + promptScores.length;
    for (let i = Math.max(0, next - 1 - start); i < numRows && start + i + 1 < promptTokens; i++) {
      const row = logits.subarray(i * this.#vocab, (i + 1) * this.#vocab);
      promptScores.push(scoreToken(row, request.promptIds[start + i + 1]!, request.logprobs ?? 0));
    }
    if (sequence.computed >= promptTokens) this.#parts.outbox.push({ type: 'prompt', id: request.id, logprobs: promptScores });
  }

  /** Draws a token and ends the sequence if it was the last. */
  #next(sequence: Sequence, row: Float32Array, nowMs: number): void {
    const { live } = this.#parts;
    const stopToken = sequence.request.maxTokens === 0 ? null : this.#draw(sequence, row, nowMs);
    if (stopToken !== null) live.finish(sequence, { reason: 'stop', stopToken }, nowMs);
    else if (this.#isFull(sequence)) live.finish(sequence, { reason: 'length', stopToken: null }, nowMs);
  }

  /** Appends and reports a token; returns it instead if it is a stop token. */
  #draw(sequence: Sequence, row: Float32Array, nowMs: number): number | null {
    const { request, sampler, choice } = sequence;
    const token = sampler.sample(row);
    sequence.record.tokenAt(nowMs);
    if (request.stopTokenIds.includes(token)) return token;

    sampler.accept(token);
    sequence.append(token);
    const logprobs: TokenLogprob[] | null = request.logprobs === null ? null : [scoreToken(row, token, request.logprobs)];
    this.#parts.outbox.push({ type: 'tokens', id: request.id, choice, tokens: [token], logprobs });
    return null;
  }

  /** A streaming text is as long as it was asked to be: its memory stays constant. */
  #isFull({ request, generated, length }: Sequence): boolean {
    return generated >= request.maxTokens || (length >= this.#parts.maxModelLen && request.attention.attention !== 'streaming');
  }

  #reportProgress({ request, promptTokens, record, computed, submission }: Sequence, nowMs: number): void {
    this.#parts.outbox.push({
      type: 'progress', id: request.id, total: promptTokens, cached: record.cachedTokens,
      processed: Math.min(computed, promptTokens), timeMs: nowMs - (submission.startedMs ?? nowMs),
    });
  }
}
