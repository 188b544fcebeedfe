// The tables of a run, read as the kernels read them (engine/cuda/kernels/CONTRACT.md).
import { describe, expect, test } from 'vitest';
import type { MovedEntry } from '../../../engine/cuda/moved-pages.ts';
import { bucketOf, buildRunTables, type Before, type ChunkPlace, type RunModel } from '../../../engine/cuda/run-tables.ts';
import type { Chunk } from '../../../engine/engine.ts';
import type { PagePlan } from '../../../kvcache/page-lists/page-list.ts';

const model: RunModel = { layers: 2, kvHeads: 2, group: 4, pairs: 8, hasWindows: false, hopperRows: null, hopperScores: false, widens: false, frequencies: null };
const none = new Int32Array(0);

function planOf(change: Partial<PagePlan> = {}): PagePlan {
  return { fixed: none, positionDelta: null, candidates: none, pick: 0, pickPer: 'kvHead', tokens: 0, ...change };
}

function place(change: Partial<Chunk> & { classes?: readonly PagePlan[]; slot?: number; fresh?: boolean; table?: ChunkPlace['table']; moved?: ChunkPlace['moved'] }): ChunkPlace {
  const { classes = [planOf()], slot = -1, fresh = false, table = null, moved = (_: Chunk, { page }: MovedEntry) => page, ...rest } = change;
  const chunk: Chunk = {
    phase: 'prefill', sequenceId: 1, tokens: Int32Array.of(5), start: 0, pageTable: Int32Array.of(30, 31, 32, 33, 34, 35),
    attention: { classes, classOf: Uint8Array.from({ length: 4 }, (_, i) => i % classes.length), selection: 'fresh' }, promptTokens: 200, logits: 'last', ...rest,
  };
  return { chunk, slot, fresh, table, moved };
}

function build(places: readonly ChunkPlace[], change: Partial<RunModel> = {}, before: Before = { firstEntry: 0, moves: [] }) {
  const tables = buildRunTables(places, { ...model, ...change }, before);
  type Name = Exclude<keyof typeof tables.offsets, 'end'>;
  const ints = (name: Name, count: number): number[] => [...new Int32Array(tables.block, tables.offsets[name], count)];
  const rows = (name: Name, count: number, width: number): number[][] => Array.from({ length: count }, (_, i) => ints(name, count * width).slice(i * width, (i + 1) * width));
  return { tables, ints, rows };
}

test('tokens, positions and wanted rows of several chunks follow each other', () => {
  const { tables, ints } = build([
    place({ tokens: Int32Array.of(7, 8, 9), start: 62, logits: 'last' }), place({ tokens: Int32Array.of(1, 2), start: 0, logits: 'all' }), place({ start: 3, logits: 'none' }),
  ]);
  expect(tables.sizes).toMatchObject({ rows: 6, chunks: 3, outputRows: 3 });
  expect(ints('tokens', 6)).toEqual([7, 8, 9, 1, 2, 5]);
  expect(ints('positions', 6)).toEqual([62, 63, 64, 0, 1, 3]);
  expect(ints('outputRows', 3)).toEqual([2, 3, 4]);
});

test('a chunk knows its first row, its own pages, its slot and its lists', () => {
  const classes = [planOf({ fixed: Int32Array.of(30, 31), tokens: 100 }), planOf({ fixed: Int32Array.of(30), candidates: Int32Array.of(31, 32, 33), pick: 2, tokens: 192 })];
  const { tables, rows } = build([place({ start: 100, tokens: new Int32Array(40) }), place({ start: 320, phase: 'decode', classes, slot: 6, fresh: true })]);
  const [first, second] = rows('chunks', 2, 16) as [number[], number[]];
  expect(first.slice(0, 10)).toEqual([0, 40, 100, 0, -1, 0, 40, 0, 0, 0]);
  expect(second.slice(0, 10)).toEqual([40, 1, 320, 2, 6, 1, 1, 1, 4, 0]);
  expect([...tables.entries]).toEqual([31, 32, 35, 30, 31, 30, 31, 32, 33]);
  expect(rows('lists', 3, 8)).toEqual([[2, 0, 2, 0, 0, 0, 0, 0], [3, 2, 5, 0, 0, 100, 0, 0], [5, 1, 6, 3, 2, 192, 0, 0]]);
  expect(tables).toMatchObject({ maxCandidates: 3, maxPick: 2, longestList: 3, pagesRead: 2 * 2 + 2 * 3, pagesScored: 2 * 3 });
  expect([...new Uint8Array(tables.block, tables.offsets.classOf, 8)]).toEqual([0, 0, 0, 0, 0, 1, 0, 1]);
});

test('each write covers what a chunk has in one logical page, and says where the chunk ends in the page', () => {
  const { rows, tables } = build([place({ start: 60, tokens: new Int32Array(24) })]);
  expect(rows('writes', tables.sizes.writes, 4)).toEqual([[0, 4, 30 * 64 + 60, 64], [4, 16, 31 * 64, 20], [20, 4, 31 * 64 + 16, 20]]);
});

describe('units of attention', () => {
  test('64 rows of tokens and query heads each', () => {
    const { rows, tables } = build([place({ tokens: new Int32Array(33) }), place({ sequenceId: 2 })]);
    expect(rows('units', tables.sizes.units, 4)).toEqual([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0]]);
  });

  test('one for each query head where they pick for themselves', () => {
    const classes = [planOf({ fixed: Int32Array.of(30), candidates: Int32Array.of(31, 32), pick: 1, pickPer: 'queryHead', tokens: 128 })];
    const { rows, tables } = build([place({ classes, start: 200, phase: 'decode', slot: 0, fresh: true })]);
    expect(rows('units', tables.sizes.units, 4)).toEqual([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 2, 0], [0, 0, 3, 0]]);
    expect(rows('lists', 1, 8)[0]![6]).toBe(1);
    expect(tables.pagesRead).toBe(2 * 4 * 4);
  });

  test('long prompts go to the kernel of Hopper, the heaviest rows first', () => {
    const { rows, tables } = build([place({ tokens: new Int32Array(65) }), place({ sequenceId: 2, tokens: new Int32Array(10) })], { hopperRows: 128 });
    expect(rows('hopperUnits', 3, 4)).toEqual([[0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]);
    expect(tables.sizes).toMatchObject({ hopperUnits: 3, units: 1 });
  });

  test('what the kernel of Hopper reads is listed once where it is widened, behind all lists', () => {
    const classes = [planOf({ fixed: Int32Array.of(30, 33), candidates: Int32Array.of(31, 32), pick: 1, tokens: 192 })];
    const at = (start: number) => place({ start, tokens: new Int32Array(64), classes, slot: 0, fresh: true });
    const places = [at(256), at(320), place({ sequenceId: 2, pageTable: Int32Array.of(77), tokens: new Int32Array(3) })];
    const { tables } = build(places, { hopperRows: 128, widens: true });
    const { first, count } = tables.hopperPages;
    expect([...tables.entries.subarray(first, first + count)].toSorted()).toEqual([30, 31, 32, 33, 34, 35]);
    expect(first + count).toBe(tables.entries.length);
    expect(tables.entries.subarray(0, first)).toEqual(build(places, { hopperRows: 128 }).tables.entries);
    expect(build(places, { hopperRows: 128 }).tables.hopperPages.count).toBe(0);
  });
});

test('pages that move are listed by their copies, and a page is full but for the last of a list', () => {
  const asked: unknown[] = [];
  const moved: ChunkPlace['moved'] = (_, { page, delta, isFull }) => { asked.push([page, delta, isFull]); return delta === 0 ? page : 90 + page; };
  const classes = [planOf({ fixed: Int32Array.of(30, 34, 35), positionDelta: Int32Array.of(64, 0, 64), tokens: 150 })];
  const { tables } = build([place({ start: 350, classes, moved })], { hasWindows: true });
  expect(asked).toEqual([[30, 64, true], [34, 0, true], [35, 64, false]]);
  expect([...tables.entries]).toEqual([35, 120, 34, 125]);
  expect([...tables.entryPositions!]).toEqual([320, 0, 256, 320]);
});

test('decode runs are padded to sizes that come back, with entries that nothing acts on', () => {
  const decode = (sequenceId: number) => place({ sequenceId, start: 70, phase: 'decode' });
  const { tables, ints, rows } = build([1, 2, 3].map(decode));
  expect(tables.sizes).toMatchObject({ rows: 4, chunks: 4, lists: 4, writes: 4, units: 4, outputRows: 4, scoreUnits: 0 });
  expect(ints('tokens', 4)[3]).toBe(-1);
  expect(ints('outputRows', 4)[3]).toBe(-1);
  expect(rows('units', 4, 4)[3]![0]).toBe(-1);
  expect(rows('writes', 4, 4)[3]![1]).toBe(0);
  expect(build([1, 2, 3, 4].map(decode)).tables.offsets).toEqual(tables.offsets);
});

test('one selecting chunk makes room for all, so that a recorded run does not depend on how many select', () => {
  const classes = [planOf({ fixed: Int32Array.of(30), candidates: Int32Array.of(31, 32), pick: 1, tokens: 128 })];
  const at = (slot: number, fresh: boolean) => place({ sequenceId: slot, start: 200, phase: 'decode', classes, slot, fresh });
  const { tables, ints } = build([at(0, false), at(1, true), at(2, false)]);
  expect(tables.sizes.scoreUnits).toBe(4);
  expect(ints('scoreUnits', 4)).toEqual([1, -1, -1, -1]);
  expect(build([at(0, false), at(1, false)]).tables.sizes.scoreUnits).toBe(0);
});

test('under dynamic RoPE the prompt has one row of frequencies and each later token its own', () => {
  const { tables, ints } = build([place({ start: 198, tokens: new Int32Array(4) })], { frequencies: (tokens) => new Float64Array(8).fill(tokens) });
  expect(ints('frequencyRow', 4)).toEqual([0, 0, 1, 2]);
  const values = new Float64Array(tables.block, tables.offsets.frequencies, 24);
  expect([values[0], values[8], values[16]]).toEqual([200, 201, 202]);
});

test('buckets hold their number, grow, and waste a quarter at most', () => {
  for (let count = 1; count < 3000; count++) {
    const bucket = bucketOf(count);
    expect(bucket).toBeGreaterThanOrEqual(count);
    expect(bucket).toBeLessThanOrEqual(count <= 8 ? 2 * count : 1.25 * count);
    expect(bucketOf(bucket)).toBe(bucket);
    expect(bucketOf(count + 1)).toBeGreaterThanOrEqual(bucket);
  }
});
