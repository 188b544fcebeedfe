/**
 * What an engine may rely on in a chunk, checked before anything is written: a broken plan must stop the
 * step, not read another sequence's memory. Knows no engine. Called by engines at the start of a step.
 */
import { MAX_MOVED_PAGES, PAGE_TOKENS, type AttentionPlan, type PagePlan } from '../kvcache/page-lists/page-list.ts';
import type { Chunk, EngineSpec } from './engine.ts';

export type Geometry = Pick<EngineSpec, 'layers' | 'kvHeads' | 'vocab'> & { readonly pageIds: number };

/** Throws RangeError for a list with entries that are no page ids. */
export type CheckList = (pages: Int32Array) => void;

/** Throws RangeError with both numbers. `checkList`: of an engine that knows what of the lists it has checked before. */
export function checkChunk(chunk: Chunk, { layers, kvHeads, vocab, pageIds }: Geometry, checkList: CheckList = (pages) => { checkBelow('page', pages, pageIds); }): void {
  const { tokens, start, pageTable, attention } = chunk;
  if (tokens.length === 0) throw new RangeError('a chunk needs at least 1 token, got 0');
  checkBelow('token', tokens, vocab);
  const lastPage = Math.floor((start + tokens.length - 1) / PAGE_TOKENS);
  if (lastPage >= pageTable.length) throw new RangeError(`page table has ${pageTable.length} pages, the chunk ends in page ${lastPage}`);
  checkBelow('page', ownPages(chunk), pageIds);
  if (attention.classOf.length !== layers * kvHeads) {
    throw new RangeError(`classOf has ${attention.classOf.length} entries for ${layers * kvHeads} KV heads`);
  }
  checkClasses(attention.classOf, attention.classes.length);
  const perQueryHead = attention.classes.some(({ pickPer }) => pickPer === 'queryHead');
  if (perQueryHead && tokens.length > 1) throw new RangeError(`a chunk whose query heads pick has 1 token, got ${tokens.length}`);
  for (const plan of attention.classes) checkPlan(plan, start, checkList);
  const numMoved = countMovedPages(attention);
  if (numMoved > MAX_MOVED_PAGES) throw new RangeError(`the lists of a chunk move ${numMoved} pages, at most ${MAX_MOVED_PAGES} are possible`);
}

/** Pages that the chunk's tokens are written to. */
export function ownPages({ start, tokens, pageTable }: Chunk): Int32Array {
  return pageTable.subarray(Math.floor(start / PAGE_TOKENS), Math.floor((start + tokens.length - 1) / PAGE_TOKENS) + 1);
}

/** Entries that are read at another position than their own. */
export function countMovedPages({ classes }: AttentionPlan): number {
  return classes.reduce((sum, { positionDelta }) => sum + (positionDelta?.reduce((count, delta) => count + (delta === 0 ? 0 : 1), 0) ?? 0), 0);
}

function checkPlan(plan: PagePlan, start: number, checkList: CheckList): void {
  const { fixed, positionDelta, candidates, pick, tokens } = plan;
  checkList(fixed);
  checkList(candidates);
  if (pick < 0 || pick > candidates.length) throw new RangeError(`pick is ${pick} of ${candidates.length} candidates`);
  if (positionDelta !== null && positionDelta.length !== fixed.length) {
    throw new RangeError(`positionDelta has ${positionDelta.length} entries for ${fixed.length} fixed pages`);
  }
  const most = PAGE_TOKENS * (fixed.length + pick);
  const least = fixed.length === 0 ? most : most - PAGE_TOKENS + 1;
  if (tokens < least || tokens > most) throw new RangeError(`a list of ${fixed.length} + ${pick} pages cannot have ${tokens} tokens`);
  if (tokens > start) throw new RangeError(`a list has ${tokens} tokens, the sequence has ${start} before the chunk`);
}

/** By index: iterating over arrays of thousands in each step would cost more than all other checks. */
export function checkBelow(what: string, ids: Int32Array, end: number): void {
  // Read without its sign, a negative id is larger than any end.
  for (let i = 0; i < ids.length; i++) if (ids[i]! >>> 0 >= end) throw outside(what, ids[i]!, end);
}

/** The same for bytes: a loop that meets one kind of array is faster. */
function checkClasses(classOf: Uint8Array, end: number): void {
  for (let i = 0; i < classOf.length; i++) if (classOf[i]! >= end) throw outside('head class', classOf[i]!, end);
}

function outside(what: string, id: number, end: number): RangeError {
  return new RangeError(`${what} ${id} is outside 0..${end - 1}`);
}
