// How a step is cut into runs of the session.
import { expect, test } from 'vitest';
import type { Chunk } from '../../../engine/engine.ts';
import { PickedPages } from '../../../engine/onnx/picked-pages.ts';
import { planRuns } from '../../../engine/onnx/run-planner.ts';
import type { PagePlan } from '../../../kvcache/page-lists/page-list.ts';

function chunk(sequenceId: number, tokens: number, list: { fixed?: number; pick?: number; pickPer?: PagePlan['pickPer'] } = {}, selection: 'fresh' | 'reuse' = 'fresh'): Chunk {
  const plan: PagePlan = {
    fixed: new Int32Array(list.fixed ?? 4), positionDelta: null, candidates: new Int32Array(list.pick === undefined ? 0 : 500),
    pick: list.pick ?? 0, pickPer: list.pickPer ?? 'kvHead', tokens: 64 * ((list.fixed ?? 4) + (list.pick ?? 0)),
  };
  const attention = { classes: [plan], classOf: Uint8Array.of(0), selection };
  const phase = tokens === 1 ? 'decode' : 'prefill';
  return { sequenceId, phase, tokens: new Int32Array(tokens), start: 640_000, pageTable: new Int32Array(10_001), attention, promptTokens: 1, logits: 'last' };
}

function runsOf(step: readonly Chunk[], picked = new PickedPages(), leastBatch = 1) {
  return [...planRuns(step, { picked, hasBlocks: true, leastBatch })].map(({ kind, chunks, pick, numSelecting }) => ({ kind, ids: chunks.map(({ sequenceId }) => sequenceId), pick, numSelecting }));
}

test('decode steps with short lists share one run, prefill chunks run alone', () => {
  expect(runsOf([chunk(1, 1), chunk(2, 128), chunk(3, 1, { fixed: 60 })])).toEqual([
    { kind: 'uniform', ids: [2], pick: 0, numSelecting: 0 },
    { kind: 'decode', ids: [1, 3], pick: 0, numSelecting: 0 },
  ]);
});

test('a long list does not make short ones pay for its length', () => {
  const runs = runsOf([chunk(1, 1), chunk(2, 1, { fixed: 1000 }), chunk(3, 1)]);
  expect(runs.map(({ ids }) => ids)).toEqual([[1, 3], [2]]);
});

test('sequences whose picked pages are known ride with those that select', () => {
  const picked = new PickedPages();
  picked.set({ sequenceId: 2, start: 0, numLists: 1 }, 0, new Int32Array(8));
  expect(runsOf([chunk(2, 1, { pick: 8 }, 'reuse'), chunk(1, 1, { pick: 8 }), chunk(3, 1, { pick: 8 }, 'reuse')], picked)).toEqual([
    { kind: 'decode', ids: [1, 3, 2], pick: 8, numSelecting: 2 },
  ]);
});

test('chunks of one sequence keep their order', () => {
  const runs = runsOf([chunk(1, 64), chunk(1, 1), chunk(1, 64), chunk(1, 1)]);
  expect(runs.map(({ kind }) => kind)).toEqual(['uniform', 'decode', 'uniform', 'decode']);
});

test('several decode tokens of a sequence run alone, and select only if they have to', () => {
  const picked = new PickedPages();
  picked.set({ sequenceId: 2, start: 0, numLists: 1 }, 0, new Int32Array(8));
  const verified = (id: number, selection: 'fresh' | 'reuse'): Chunk => ({ ...chunk(id, 5, { pick: 8 }, selection), phase: 'decode' });
  expect(runsOf([verified(1, 'reuse'), verified(2, 'reuse'), verified(2, 'fresh'), chunk(3, 1)], picked)).toEqual([
    { kind: 'uniform', ids: [1], pick: 8, numSelecting: 1 },
    { kind: 'uniform', ids: [2], pick: 0, numSelecting: 0 },
    { kind: 'uniform', ids: [2], pick: 8, numSelecting: 1 },
    { kind: 'decode', ids: [3], pick: 0, numSelecting: 0 },
  ]);
});

test('sequences whose query heads pick for themselves share runs of their own', () => {
  const own = { pick: 8, pickPer: 'queryHead' } as const;
  expect(runsOf([chunk(1, 1, own), chunk(2, 1, { pick: 8 }), chunk(3, 1, own)])).toEqual([
    { kind: 'queryHeads', ids: [1, 3], pick: 8, numSelecting: 2 },
    { kind: 'decode', ids: [2], pick: 8, numSelecting: 1 },
  ]);
});

test('different numbers of pages to pick need different runs', () => {
  expect(runsOf([chunk(1, 1, { pick: 8 }), chunk(2, 1, { pick: 12 })])).toHaveLength(2);
});

test('a batch too small for the threads runs one by one, as chunks', () => {
  const kinds = (step: readonly Chunk[]) => runsOf(step, new PickedPages(), 2).map(({ kind, ids }) => ({ kind, ids }));
  expect(kinds([chunk(1, 1)])).toEqual([{ kind: 'uniform', ids: [1] }]);
  expect(kinds([chunk(1, 1), chunk(2, 1, { fixed: 1000 }), chunk(3, 1)])).toEqual([{ kind: 'decode', ids: [1, 3] }, { kind: 'uniform', ids: [2] }]);
});

test('long texts that are read whole are attended by blocks, as many tokens and blocks as each other, 64 blocks together', () => {
  const long = (sequenceId: number, tokens: number, start: number): Chunk => {
    const one = chunk(sequenceId, tokens);
    const plan = { ...one.attention.classes[0]!, fixed: new Int32Array(Math.ceil(start / 64)), tokens: start };
    return { ...one, phase: 'decode', start, attention: { ...one.attention, classes: [plan] } };
  };
  const kinds = (step: readonly Chunk[]) => runsOf(step).map(({ kind, ids }) => ({ kind, ids }));
  expect(kinds([long(1, 1, 8191), long(2, 1, 8192), long(3, 5, 8300), long(4, 5, 9000), long(5, 5, 9213), long(6, 1, 9000)])).toEqual([
    { kind: 'uniform', ids: [5] }, // Goes beyond its block.
    { kind: 'decode', ids: [1] }, { kind: 'blocks', ids: [2, 6] }, { kind: 'blocks', ids: [3, 4] },
  ]);
  expect(kinds([1, 2, 3].map((id) => long(id, 1, 32_000)))).toEqual([{ kind: 'blocks', ids: [1, 2] }, { kind: 'blocks', ids: [3] }]);
});
