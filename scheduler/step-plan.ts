/**
 * From "compute so many tokens of this sequence" to the engine's chunks: cut where the sequence's page list
 * policy wants cuts, each with its lists. Knows no queue and no pages but the sequence's own. Called by
 * scheduler.ts.
 */
import type { Chunk } from '../engine/engine.ts';
import type { AttentionPlan } from '../kvcache/page-lists/page-list.ts';
import { readsOf, type AttentionReads } from './sequence-record.ts';
import type { Sequence } from './sequence.ts';

export interface PlannedChunk extends Chunk {
  readonly sequence: Sequence;
  readonly reads: AttentionReads;
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

/** The next `tokens` tokens of a sequence, whose pages are reserved, as chunks in order. */
export function chunksOf(sequence: Sequence, tokens: number): PlannedChunk[] {
  const end = sequence.computed + tokens;
  const chunks: PlannedChunk[] = [];
  for (let start = sequence.computed; start < end; start += chunks.at(-1)!.tokens.length) {
    chunks.push(planChunk(sequence, start, end - start));
  }
  return chunks;
}

function planChunk(sequence: Sequence, start: number, maxTokens: number): PlannedChunk {
  const phase = sequence.isDecoding || start >= sequence.prefillEnd ? 'decode' : 'prefill';
  const numTokens = phase === 'decode' ? 1 : prefillTokens(sequence, start, maxTokens);
  const isScored = reachesScored(sequence, start + numTokens);
  const pageTable = sequence.pages!.table.entries;
  const plan = sequence.policy.plan(pageTable, start, numTokens, phase);
  const isLast = start + numTokens === sequence.length;
  return {
    sequence,
    phase,
    reads: readsOf(plan, phase === 'decode' ? 1 : 0),
    sequenceId: sequence.id,
    tokens: sequence.text.subarray(start, start + numTokens),
    start,
    pageTable,
    attention: freshAtFirst(plan, sequence, start),
    promptTokens: sequence.promptTokens,
    logits: isScored ? 'all' : isLast ? 'last' : 'none',
  };
}

/** Up to where logits begin to be wanted chunks may be long; from there on all rows are returned. */
function prefillTokens(sequence: Sequence, start: number, maxTokens: number): number {
  const { policy, prefillEnd } = sequence;
  const tokens = Math.min(maxTokens, prefillEnd - start, policy.maxChunkTokens(start));
  return reachesScored(sequence, start + tokens) ? Math.min(tokens, MAX_LOGIT_ROWS) : tokens;
}

/** Whether a chunk that ends there holds a token whose logits were asked for. */
function reachesScored(sequence: Sequence, end: number): boolean {
  const unscored = unscoredTokens(sequence);
  return unscored < sequence.promptTokens && end > unscored;
}

/** The first decode step must not reuse what a span of the prompt picked: it stands elsewhere. */
function freshAtFirst(plan: AttentionPlan, { promptTokens }: Sequence, start: number): AttentionPlan {
  return start === promptTokens && plan.selection === 'reuse' ? { ...plan, selection: 'fresh' } : plan;
}
