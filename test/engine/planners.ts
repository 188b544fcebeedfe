/**
 * Lists of pages that the engine cases read by: which pages, moved by how much, picked by whom. Knows no engine
 * but its geometry. Called by engine.cases.ts.
 */
import type { Engine } from '../../engine/engine.ts';
import { PAGE_TOKENS, type AttentionPlan } from '../../kvcache/page-lists/page-list.ts';
import { dense, listOf, pagesFor, picking, planOf, type Planner } from './texts.ts';

/** First page, last two pages. */
export const sinksAndRecent: Planner = (engine, text, start) => {
  const used = pagesFor(start);
  if (used <= 3) return dense(engine, text, start);
  const fixed = [text.pageTable[0]!, ...text.pageTable.subarray(used - 2, used)];
  return planOf(engine, listOf(fixed, start - (used - 3) * PAGE_TOKENS));
};

/** As sinksAndRecent, the sink read as if it stood just before the recent pages. */
export const sinksMovedUp: Planner = (engine, text, start) => {
  const plan = sinksAndRecent(engine, text, start);
  const gap = (pagesFor(start) - 3) * PAGE_TOKENS;
  if (gap <= 0) return plan;
  return { ...plan, classes: plan.classes.map((list) => ({ ...list, positionDelta: Int32Array.of(gap, 0, 0) })) };
};

/** Everything before `start - delta`, read as if it stood `delta` tokens later. */
export function movedBy(delta: number): Planner {
  return (engine, text, start) => {
    const plan = dense(engine, { ...text, pageTable: text.pageTable.subarray(delta / PAGE_TOKENS) }, start - delta);
    return { ...plan, classes: plan.classes.map((list) => ({ ...list, positionDelta: new Int32Array(list.fixed.length).fill(delta) })) };
  };
}

/** First page and last two pages fixed, all between picked: needs more than three pages. */
export const pickingAll: Planner = (engine, { pageTable }, start) => {
  const used = pagesFor(start);
  const candidates = pageTable.slice(1, used - 2);
  const ends = listOf([pageTable[0]!, ...pageTable.subarray(used - 2, used)], start);
  return planOf(engine, { ...ends, candidates, pick: candidates.length });
};

/** Two lists in turn over the KV heads: everything, and sinks with recent pages. */
export const headsApart: Planner = (engine, text, start) => inTurn(engine, [dense(engine, text, start), sinksAndRecent(engine, text, start)]);

export const halfPicking: Planner = (engine, text, start) => inTurn(engine, [picking(3)(engine, text, start), sinksAndRecent(engine, text, start)]);

function inTurn(engine: Engine, plans: readonly AttentionPlan[]): AttentionPlan {
  const numHeads = engine.spec.layers * engine.spec.kvHeads;
  return {
    classes: plans.map(({ classes }) => classes[0]!), selection: 'fresh',
    classOf: Uint8Array.from({ length: numHeads }, (_, head) => (head + Math.floor(head / engine.spec.kvHeads)) % plans.length),
  };
}

/** As halfPicking; only multiples of 5 pick anew. */
export const halfPickingThenReusing: Planner = (engine, text, start) =>
  ({ ...halfPicking(engine, text, start), selection: start % 5 === 0 ? 'fresh' : 'reuse' });

export function perQueryHead(planner: Planner): Planner {
  return (engine, text, start) => {
    const plan = planner(engine, text, start);
    return { ...plan, classes: plan.classes.map((list) => ({ ...list, pickPer: list.pick > 0 ? 'queryHead' : 'kvHead' })) };
  };
}

export const queryHeadsPicking = perQueryHead(halfPickingThenReusing);
