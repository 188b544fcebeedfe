/**
 * From "compute so many tokens of this sequence, and what was drafted after them" to the engine's chunks: cut where the
 * sequence's page list policy wants cuts, each with its lists. Knows no queue and no pages but the sequence's own.
 * Called by loop.ts.
 */
import type { Draft } from '../engine/drafters/drafter.ts';
import type { Chunk } from '../engine/engine.ts';
import type { DraftedToken } from '../engine/verify.ts';
import type { AttentionPlan } from '../kvcache/page-lists/page-list.ts';
import { readsOf, type AttentionReads } from './sequence-record.ts';
import type { Sequence } from './sequence.ts';

/** What the next step computes of a sequence; its pages are reserved. */
export interface Scheduled {
  readonly sequence: Sequence;
  /** Tokens of its text. */
  readonly tokens: number;
  /** Tokens that may be drafted after them. */
  readonly draftTokens: number;
}

export interface PlannedChunk extends Chunk {
  readonly sequence: Sequence;
  readonly reads: AttentionReads;
  /** The drafted token that each token is followed by, if one is; the rows of logits verify them. [tokens], or empty without a draft */
  readonly drafted: readonly DraftedToken[];
}

/** Rows of logits are wide: a chunk that returns all of them has at most this many. */
const MAX_LOGIT_ROWS = 128;
/** Generated tokens recomputed per step, where that has to be done one by one: each costs as much as a decode step. */
const MAX_REPLAYED_TOKENS = 16;

/**
 * How many of at most `allowance` tokens a sequence that is not decoding may compute now: whole spans, or
 * up to the end of its prefill; 0 if not even a span fits.
 */
export function wholeSpans({ computed, remaining, prefillEnd, policy }: Sequence, allowance: number): number {
  if (computed >= prefillEnd) return Math.max(0, Math.min(allowance, remaining, MAX_REPLAYED_TOKENS));
  if (computed + allowance >= prefillEnd) return prefillEnd - computed;
  return Math.max(0, allowance - ((computed + allowance) % policy.spanTokens));
}

/** Leading tokens of the prompt whose logits nobody asked for: all, unless it is scored. Only these may come from the cache. */
export function unscoredTokens({ request, leader, hasPrefilled, promptTokens }: Sequence): number {
  if (request.promptLogprobsFrom === null || leader !== null || hasPrefilled) return promptTokens;
  return Math.min(request.promptLogprobsFrom - 1, promptTokens);
}

/** The next tokens of a sequence, and its draft, as chunks in order. */
export function chunksOf({ sequence, tokens }: Scheduled, draft: Draft | null): PlannedChunk[] {
  const piece = new Piece(sequence, tokens, draft);
  const chunks: PlannedChunk[] = [];
  for (let start = sequence.computed; start < piece.end; start += chunks.at(-1)!.tokens.length) chunks.push(planChunk(piece, start));
  return chunks;
}

/**
 * The chunk after a decode chunk of one token that runs, but for its token, which is 0 until it is known: what chunksOf
 * gives for it when the sequence has gone on.
 */
export function planNextDecode({ sequence, start, promptTokens }: PlannedChunk): PlannedChunk {
  const pageTable = sequence.pages!.table.entries;
  const plan = sequence.policy.plan(pageTable, start + 1, 1, 'decode');
  return {
    sequence, phase: 'decode', reads: readsOf(plan, 1), sequenceId: sequence.id, tokens: new Int32Array(1), start: start + 1, pageTable,
    attention: plan, promptTokens, logits: 'last', headTemperature: sequence.sampler.temperature, drafted: [],
  };
}

/** What a step computes of one sequence: tokens of its text, then drafted ones. */
class Piece {
  readonly sequence: Sequence;
  readonly end: number;
  readonly #draft: Draft | null;

  constructor(sequence: Sequence, tokens: number, draft: Draft | null) {
    this.sequence = sequence;
    this.#draft = draft;
    this.end = sequence.computed + tokens + (draft?.tokens.length ?? 0);
  }

  get hasDraft(): boolean {
    return this.#draft !== null && this.#draft.tokens.length > 0;
  }

  tokens(start: number, end: number): Int32Array {
    const { text } = this.sequence;
    if (end <= text.length) return text.subarray(start, end);
    return Int32Array.from({ length: end - start }, (_, i) => text[start + i] ?? this.#draft!.tokens[start + i - text.length]!);
  }

  /** Of the tokens after positions start.. end - 1. */
  drafted(start: number, end: number): DraftedToken[] {
    const first = start + 1 - this.sequence.length;
    const drafted: DraftedToken[] = [];
    for (let i = first; this.hasDraft && i < Math.min(end - start + first, this.#draft!.tokens.length); i++) {
      drafted.push({ token: this.#draft!.tokens[i]!, distribution: this.#draft!.distributions[i]! });
    }
    return drafted;
  }
}

function planChunk(piece: Piece, start: number): PlannedChunk {
  const { sequence } = piece;
  const phase = sequence.isDecoding || start >= sequence.prefillEnd ? 'decode' : 'prefill';
  const end = start + (phase === 'decode' ? decodeTokens(piece, start) : prefillTokens(piece, start));
  const isScored = reachesScored(sequence, end);
  const pageTable = sequence.pages!.table.entries;
  const plan = sequence.policy.plan(pageTable, start, end - start, phase);
  return {
    sequence,
    phase,
    reads: readsOf(plan, phase === 'decode' ? 1 : 0),
    sequenceId: sequence.id,
    tokens: piece.tokens(start, end),
    start,
    pageTable,
    attention: freshAtFirst(plan, sequence, start),
    promptTokens: sequence.promptTokens,
    logits: isScored || piece.hasDraft ? 'all' : end === sequence.length ? 'last' : 'none',
    headTemperature: sequence.sampler.temperature,
    ...(isScored ? { targets: targetsOf(sequence, start, end) } : {}),
    drafted: piece.drafted(start, end),
  };
}

/** One at a time, unless they are verified together. */
function decodeTokens({ sequence, end, hasDraft }: Piece, start: number): number {
  return hasDraft ? Math.min(end - start, sequence.policy.maxDecodeTokens(start)) : 1;
}

/** Up to where logits begin to be wanted chunks may be long; from there on all rows are returned. */
function prefillTokens({ sequence, end }: Piece, start: number): number {
  const { policy, prefillEnd } = sequence;
  const tokens = Math.min(end - start, prefillEnd - start, policy.maxChunkTokens(start));
  return reachesScored(sequence, start + tokens) ? Math.min(tokens, MAX_LOGIT_ROWS) : tokens;
}

/** Whether prefill that ends there holds a token whose logits were asked for. */
export function reachesScored(sequence: Sequence, end: number): boolean {
  const unscored = unscoredTokens(sequence);
  return unscored < sequence.promptTokens && end > unscored;
}

/** The tokens of the prompt behind those of start..end - 1. */
function targetsOf({ request, promptTokens }: Sequence, start: number, end: number): Int32Array {
  const targets = new Int32Array(end - start).fill(-1);
  targets.set(request.promptIds.subarray(start + 1, Math.min(end + 1, promptTokens)));
  return targets;
}

/** The first decode step must not reuse what a span of the prompt picked: it stands elsewhere. */
function freshAtFirst(plan: AttentionPlan, { promptTokens }: Sequence, start: number): AttentionPlan {
  return start === promptTokens && plan.selection === 'reuse' ? { ...plan, selection: 'fresh' } : plan;
}
