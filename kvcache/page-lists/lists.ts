/**
 * The pieces that page lists are made of: page arithmetic, and the two shapes of `fixed` that several
 * techniques share. Knows no technique and no model. Called by dense.ts, streaming.ts and lserve.ts.
 */
import { BLOCK_TOKENS, PAGE_TOKENS, type PagePlan, type PageRange } from './page-list.ts';

/**
 * Sparse prefill works in spans of this many tokens, aligned in the text: all queries of a span share one
 * window and one selection. 128 because a selection pooled over more queries loses answers inside the
 * prompt, and 64 finds no more of them while the engine runs half as many rows at a time. Spans are
 * aligned to the text, not to the chunk, so that results depend on positions only.
 */
export const PREFILL_SPAN_TOKENS = 128;

/** Of policies all of whose heads read what one of them reads. */
export const NO_HEADS = new Int32Array(0);
export const NO_RANGE: PageRange = { from: 0, to: 0 };

const NO_PAGES = new Int32Array(0);

/** Pages that hold `tokens` tokens. */
export function pagesFor(tokens: number): number {
  return Math.ceil(tokens / PAGE_TOKENS);
}

/** First page of the span that position `start` lies in. */
export function spanPage(start: number): number {
  return Math.floor(start / PREFILL_SPAN_TOKENS) * (PREFILL_SPAN_TOKENS / PAGE_TOKENS);
}

/** First page that a query at `start` still sees through a sliding window of `window` tokens, itself included. */
export function windowPage(start: number, window: number): number {
  return Math.max(0, Math.floor((start - window + 1) / PAGE_TOKENS));
}

/** Valid tokens in a list of `entries` pages whose last page holds position start - 1. */
export function listTokens(entries: number, start: number): number {
  return entries * PAGE_TOKENS - (pagesFor(start) * PAGE_TOKENS - start);
}

/** Every page from index `from` up to `start`: a view of the table, not a copy. */
export function pagesFrom(pageTable: Int32Array, from: number, start: number): PagePlan {
  return fixedList(pageTable.subarray(from, pagesFor(start)), start);
}

/** The pages before index `numSinks` and those from index `recent` up to `start`. */
export function sinksAndRecent(pageTable: Int32Array, ends: { numSinks: number; recent: number }, start: number): PagePlan {
  const { numSinks, recent } = ends;
  if (recent <= numSinks) return pagesFrom(pageTable, 0, start);
  const numRecent = pagesFor(start) - recent;
  const fixed = new Int32Array(numSinks + numRecent);
  // A few entries in each decode step: by index they need no views.
  for (let i = 0; i < numSinks; i++) fixed[i] = pageTable[i]!;
  for (let i = 0; i < numRecent; i++) fixed[numSinks + i] = pageTable[recent + i]!;
  return fixedList(fixed, start);
}

/** Spans that begin at or before `exactTokens` read everything and may be computed together; later ones one by one. */
export function maxDenseOrSpan(start: number, exactTokens: number): number {
  const lastSpan = Math.max(spanPage(start), spanPage(exactTokens)) * PAGE_TOKENS;
  return lastSpan + PREFILL_SPAN_TOKENS - start;
}

/** Tokens from `start` to the end of its block: where a decode chunk ends whose list may hold the whole text. */
export function untilBlockEnds(start: number): number {
  return BLOCK_TOKENS - (start % BLOCK_TOKENS);
}

function fixedList(fixed: Int32Array, start: number): PagePlan {
  return { fixed, positionDelta: null, candidates: NO_PAGES, pick: 0, pickPer: 'kvHead', tokens: listTokens(fixed.length, start) };
}
