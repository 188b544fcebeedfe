/**
 * Page scores and the choice by them (Quest, arXiv 2406.10774; logical pages: LServe, arXiv 2502.14866).
 * Knows statistics and numbers only. Called by attention.ts; the meaning that every engine's selection has.
 */
import { LOGICAL_PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { LOGICAL_PER_PAGE, type PageMemory, type Slot } from './page-memory.ts';

/** Upper bound of query.key over all keys between the minimum and the maximum, channel by channel. */
export function boundScore(query: Float64Array, minimum: Float64Array, maximum: Float64Array): number {
  let sum = 0;
  for (let channel = 0; channel < query.length; channel++) {
    sum += Math.max(query[channel]! * maximum[channel]!, query[channel]! * minimum[channel]!);
  }
  return sum;
}

/** Score of a full page for one KV head: the best over its logical pages and the queries that share the choice. */
export function pageScore(memory: PageMemory, at: Omit<Slot, 'slot'>, queries: readonly Float64Array[]): number {
  let best = -Infinity;
  for (let logical = 0; logical < LOGICAL_PER_PAGE; logical++) {
    const { minimum, maximum } = memory.statistics({ ...at, slot: logical * LOGICAL_PAGE_TOKENS });
    for (const query of queries) best = Math.max(best, boundScore(query, minimum, maximum));
  }
  return best;
}

/** Indices of the `pick` best scores, ascending; of equal scores the lower index wins. */
export function bestIndices(scores: Float64Array, pick: number): number[] {
  const byScore = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b);
  return byScore.slice(0, pick).sort((a, b) => a - b);
}
