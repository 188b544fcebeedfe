/**
 * What follows from a step that was run: chunks count as computed, full pages are shared, pages read no
 * more go back, tokens are drawn or drafted ones verified, and sequences that have all they asked for end. Plain
 * decoding is the case of no draft. Knows no queue and does no planning. Called by loop.ts after each step.
 */
import type { Engine, StepResult } from '../engine/engine.ts';
import { rowsOf, type LogitRow } from '../engine/logit-row.ts';
import { scoreToken } from '../engine/logprobs.ts';
import { verify, type DraftedToken } from '../engine/verify.ts';
import type { KvCache } from '../kvcache/kv-cache.ts';
import type { LiveSequences } from './live-sequences.ts';
import type { FinishReason, TokenLogprob } from './messages.ts';
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

interface End {
  readonly reason: FinishReason;
  readonly stopToken: number | null;
}

/** What one chunk gave its sequence. */
class Gains {
  /** With the stop token, which is not in `tokens`. */
  numDrawn = 0;
  readonly tokens: number[] = [];
  readonly logprobs: TokenLogprob[] = [];
  end: End | null = null;
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
      this.#read(chunk, rowsOf(result, i, this.#vocab), nowMs);
      const isPrefillEnd = chunk.phase === 'prefill' && plan[i + 1]?.sequence !== sequence;
      if (isPrefillEnd && sequence.request.progress && sequence.leader === null) this.#reportProgress(sequence, nowMs);
    });
  }

  #advance(sequence: Sequence, tokens: number): void {
    const { kv } = this.#parts;
    sequence.computed += tokens;
    sequence.highWater = Math.max(sequence.highWater, sequence.computed);
    kv.commit(sequence.pages!, sequence.text, sequence.shareableTokens);
    kv.pass(sequence.pages!, sequence.policy.passedPages(sequence.computed));
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
  #read(chunk: PlannedChunk, rows: readonly LogitRow[], nowMs: number): void {
    const { sequence } = chunk;
    try {
      if (chunk.phase === 'decode' && rows.length > 0) this.#decode(chunk, rows, nowMs);
      else this.#prefill(chunk, rows, nowMs);
    } catch (error) {
      if (sequence.state === 'ended') throw error;
      this.#parts.live.fail(sequence, 'engine_failed', error instanceof Error ? error.message : String(error));
    }
  }

  #prefill(chunk: PlannedChunk, rows: readonly LogitRow[], nowMs: number): void {
    const { sequence, tokens } = chunk;
    this.#advance(sequence, tokens.length);
    const row = rows.at(-1);
    if (row === undefined) return;
    if (chunk.logits === 'all') this.#scorePrompt(chunk, rows);
    const gains = new Gains();
    if (sequence.remaining === 0) gains.end = this.#next(sequence, { row, drafted: null }, gains);
    this.#tell(sequence, gains, nowMs);
  }

  /**
   * Row by row for as long as the chunk's tokens are those of the text: a drafted one is once its row has upheld it.
   * What was computed past that is taken back.
   */
  #decode({ sequence, tokens, start, drafted }: PlannedChunk, rows: readonly LogitRow[], nowMs: number): void {
    const gains = new Gains();
    for (let i = 0; i < tokens.length && gains.end === null && sequence.text[start + i] === tokens[i]; i++) {
      this.#advance(sequence, 1);
      gains.end = this.#next(sequence, { row: rows[i]!, drafted: drafted[i] ?? null }, gains);
    }
    if (sequence.computed < start + tokens.length) {
      this.#parts.engine.truncate({ sequenceId: sequence.id, pageTable: sequence.pages!.table.entries }, sequence.computed);
    }
    this.#tell(sequence, gains, nowMs);
  }

  /** Row i tells of the token after position start + i. */
  #scorePrompt({ sequence, start }: PlannedChunk, rows: readonly LogitRow[]): void {
    const { promptTokens, request } = sequence;
    const next = request.promptLogprobsFrom! + sequence.numScored;
    const logprobs: TokenLogprob[] = [];
    for (let i = Math.max(0, next - 1 - start); i < rows.length && start + i + 1 < promptTokens; i++) {
      logprobs.push(scoreToken(rows[i]!, request.promptIds[start + i + 1]!, request.logprobs ?? 0));
    }
    if (logprobs.length === 0) return;
    sequence.numScored += logprobs.length;
    this.#parts.outbox.push({ type: 'prompt', id: request.id, logprobs });
  }

  /** Adds the token of a row to the text and to `gains`. -> how the sequence ends, if it does */
  #next(sequence: Sequence, at: { row: LogitRow; drafted: DraftedToken | null }, gains: Gains): End | null {
    const { request, sampler } = sequence;
    if (request.maxTokens > 0) {
      const token = this.#token(sequence, at);
      gains.numDrawn++;
      if (request.stopTokenIds.includes(token)) return { reason: 'stop', stopToken: token };
      sampler.accept(token);
      sequence.append(token);
      gains.tokens.push(token);
      if (request.logprobs !== null) gains.logprobs.push(scoreToken(at.row, token, request.logprobs));
    }
    return this.#isFull(sequence) ? { reason: 'length', stopToken: null } : null;
  }

  #token({ sampler, speculation, request }: Sequence, { row, drafted }: { row: LogitRow; drafted: DraftedToken | null }): number {
    if (drafted === null) return sampler.sample(row);
    const { token, accepted } = verify(row, drafted, sampler, request.speculation.eta);
    speculation!.compared(accepted);
    if (accepted) this.#parts.outbox.count('acceptedTokens', 1);
    return token;
  }

  #tell(sequence: Sequence, { numDrawn, tokens, logprobs, end }: Gains, nowMs: number): void {
    const { live, outbox } = this.#parts;
    const { request, choice } = sequence;
    for (let i = 0; i < numDrawn; i++) sequence.record.tokenAt(nowMs);
    if (tokens.length > 0) outbox.push({ type: 'tokens', id: request.id, choice, tokens, logprobs: request.logprobs === null ? null : logprobs });
    if (end !== null) live.finish(sequence, end, nowMs);
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
