// How a step is cut into runs: what may be computed together and what has to wait.
import { expect, test } from 'vitest';
import { planRuns } from '../../../engine/cuda/run-planner.ts';
import type { Chunk } from '../../../engine/engine.ts';
import type { PagePlan } from '../../../kvcache/page-lists/page-list.ts';

const limits = { rows: 1000, scoredRows: 1000, chunks: 10, promptPages: Infinity, joinsPrompts: true };

function chunk(sequenceId: number, start: number, tokens: number, { phase = tokens === 1 ? 'decode' : 'prefill', plan = {} }: { phase?: Chunk['phase']; plan?: Partial<PagePlan> } = {}): Chunk {
  const none = new Int32Array(0);
  const list: PagePlan = { fixed: none, positionDelta: null, candidates: none, pick: 0, pickPer: 'kvHead', tokens: 0, ...plan };
  return {
    sequenceId, start, phase, tokens: new Int32Array(tokens), pageTable: Int32Array.from({ length: 40 }, (_, i) => 100 * sequenceId + i),
    attention: { classes: [list], classOf: new Uint8Array(4), selection: 'fresh' }, promptTokens: 1000, logits: 'last',
  };
}

function sizes(step: readonly Chunk[], change: Partial<typeof limits> = {}): number[] {
  return planRuns(step, { ...limits, ...change }).map(({ length }) => length);
}

test('different sequences go together, prefill and decode, up to the rows and chunks that there is room for', () => {
  expect(sizes([chunk(1, 10, 1), chunk(2, 0, 300), chunk(3, 5, 1)])).toEqual([3]);
  expect(sizes([chunk(1, 0, 600), chunk(2, 0, 400), chunk(3, 0, 1)])).toEqual([2, 1]);
  expect(sizes([chunk(1, 0, 5000), chunk(2, 0, 1)])).toEqual([1, 1]);
  expect(sizes([chunk(1, 5, 1), chunk(2, 5, 1), chunk(3, 5, 1)], { chunks: 2 })).toEqual([2, 1]);
  expect(sizes([])).toEqual([]);
});

test('the next chunk of a prompt goes along where it begins at a page border, and in no other case', () => {
  expect(sizes([chunk(1, 0, 128), chunk(1, 128, 128), chunk(2, 7, 1), chunk(1, 256, 30)])).toEqual([4]);
  expect(sizes([chunk(1, 0, 128), chunk(1, 128, 128), chunk(2, 7, 1)], { joinsPrompts: false })).toEqual([1, 2]);
  expect(sizes([chunk(1, 0, 100), chunk(1, 100, 100)])).toEqual([1, 1]);
  expect(sizes([chunk(1, 0, 128), chunk(1, 128, 1)])).toEqual([1, 1]);
  expect(sizes([chunk(1, 127, 1), chunk(1, 128, 1)])).toEqual([1, 1]);
  expect(sizes([chunk(1, 63, 1, { phase: 'prefill' }), chunk(1, 64, 64), chunk(1, 192, 64)])).toEqual([2, 1]);
});

test('prompts that are scored go together while there is room for their rows of logits', () => {
  const scored = (sequenceId: number): Chunk => ({ ...chunk(sequenceId, 0, 128), logits: 'all', targets: new Int32Array(128) });
  const step = [scored(1), scored(2), chunk(3, 5, 1), chunk(4, 0, 100)];
  expect(sizes(step, { scoredRows: 256 })).toEqual([4]);
  expect(sizes(step, { scoredRows: 255 })).toEqual([1, 3]);
  expect(sizes(step, { scoredRows: 50 })).toEqual([1, 1, 2]);
});

test('prompts go together while there is room for all pages that they read; one text counts once, decode not', () => {
  const reading = (pages: number) => ({ plan: { fixed: new Int32Array(pages) } });
  const step = [chunk(1, 0, 128), chunk(1, 128, 128, reading(2)), chunk(2, 64, 128, reading(1)), chunk(3, 2000, 1), chunk(4, 0, 1, { phase: 'prefill' })];
  expect(sizes(step, { promptPages: 8 })).toEqual([5]);
  expect(sizes(step, { promptPages: 7 })).toEqual([4, 1]);
  expect(sizes(step, { promptPages: 6 })).toEqual([2, 3]);
  // Ten pages of one, four of them read.
  expect(sizes([chunk(1, 640, 64, reading(3)), chunk(2, 0, 64)], { promptPages: 5 })).toEqual([2]);
  expect(sizes([chunk(1, 640, 64, reading(3)), chunk(2, 0, 64)], { promptPages: 4 })).toEqual([1, 1]);
});

test('a chunk that moves pages waits until they are written', () => {
  const moving = (page: number) => ({ plan: { fixed: Int32Array.of(page, 130), positionDelta: Int32Array.of(64, 0), tokens: 128 } });
  expect(sizes([chunk(1, 128, 128, moving(100)), chunk(1, 256, 128, moving(100))])).toEqual([2]);
  expect(sizes([chunk(1, 0, 128), chunk(1, 128, 128, moving(100))])).toEqual([1, 1]);
});

test('a run moves no more pages than there are copies', () => {
  const moving = { plan: { fixed: new Int32Array(200), positionDelta: new Int32Array(200).fill(64), tokens: 200 * 64 } };
  expect(sizes([chunk(1, 20_000, 1, moving), chunk(2, 20_000, 1), chunk(3, 20_000, 1, moving)])).toEqual([2, 1]);
});
