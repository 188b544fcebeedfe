// Page tables that are kept from step to step, against listing them anew: lists, checks, positions and what the device holds.
import { expect, test } from 'vitest';
import { checkChunk, type Geometry } from '../../../engine/check-chunk.ts';
import { KeptTables } from '../../../engine/cuda/kept-tables.ts';
import { buildRunTables, type ChunkPlace, type RunModel, type RunTables } from '../../../engine/cuda/run-tables.ts';
import type { Chunk } from '../../../engine/engine.ts';
import { KvCache, type SequencePages } from '../../../kvcache/kv-cache.ts';
import { createPageListPolicy } from '../../../kvcache/page-lists/create.ts';
import type { AttentionSettings, PageListPolicy } from '../../../kvcache/page-lists/page-list.ts';
import { SeededRandom } from '../../seeded-random.ts';

const PAGES = 400;
const geometry: Geometry = { layers: 3, kvHeads: 2, vocab: 50, pageIds: PAGES };
const model: RunModel = { layers: 3, kvHeads: 2, group: 4, pairs: 8, hasWindows: true, hopperRows: null, hopperScores: false, widens: false, frequencies: null };
const settings: AttentionSettings = {
  attention: 'lserve', tokenBudget: 512, sinkTokens: 64, localTokens: 128, streamingHeads: 0.5,
  selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};
const heads = { layers: 3, kvHeads: 2, slidingWindow: [null, 700, null], headOrder: Int32Array.of(0, 5, 1, 4, 2, 3) };
const policies: readonly PageListPolicy[] = [
  createPageListPolicy(settings, heads),
  createPageListPolicy({ ...settings, attention: 'dense' }, heads),
  createPageListPolicy({ ...settings, attention: 'streaming' }, { ...heads, slidingWindow: [null, null, null] }),
];

/** The memory that copies go to: what a kernel finds at an index of `entries` and `entryPositions`. */
class FakeDevice {
  epoch = 0;
  #entries = new Map<number, { page: number; position: number }>();

  lose(): void {
    this.epoch++;
    this.#entries.clear();
  }

  put(first: number, pages: Int32Array, position: (i: number) => number): void {
    pages.forEach((page, i) => { this.#entries.set(first + i, { page, position: position(i) }); });
  }

  read(first: number, count: number): { page: number; position: number }[] {
    return Array.from({ length: count }, (_, i) => this.#entries.get(first + i)!);
  }
}

function chunkOf(sequenceId: number, pageTable: Int32Array, of: { start: number; tokens?: number; policy?: PageListPolicy }): Chunk {
  const { start, tokens = 1, policy = policies[0]! } = of;
  return {
    phase: 'decode', sequenceId, tokens: new Int32Array(tokens), start, pageTable,
    attention: policy.plan(pageTable, start, tokens, 'decode'), promptTokens: start, logits: 'last',
  };
}

/** What each chunk's own pages and lists are, by the numbers of the tables. */
function listsOf(tables: RunTables, chunks: readonly Chunk[], device: FakeDevice) {
  const row = (name: 'chunks' | 'lists', index: number, width: number): Int32Array => new Int32Array(tables.block, tables.offsets[name] + 4 * index * width, width);
  return chunks.map(({ start, tokens, attention }, i) => {
    const [, , , ownPages, , , , firstList] = row('chunks', i, 16) as unknown as number[];
    const own = Math.ceil((start + tokens.length) / 64) - Math.floor(start / 64);
    const lists = attention.classes.map((_, index) => {
      const [fixed, numFixed, candidates, numCandidates] = row('lists', firstList! + index, 8) as unknown as number[];
      return { fixed: device.read(fixed!, numFixed!), candidates: device.read(candidates!, numCandidates!) };
    });
    return { own: device.read(ownPages!, own), lists };
  });
}

/** Runs the chunks through kept tables. -> how many entries went to the device */
function step(kept: KeptTables, chunks: readonly Chunk[], device: FakeDevice) {
  for (const chunk of chunks) {
    const table = kept.bring(chunk);
    checkChunk(chunk, geometry, (pages) => { table.check(pages); });
  }
  const place = (chunk: Chunk, table: ChunkPlace['table']): ChunkPlace => ({ chunk, slot: 0, fresh: true, table, moved: (_, { page }) => page });
  const tables = buildRunTables(chunks.map((chunk) => place(chunk, kept.of(chunk))), model, { firstEntry: kept.length, moves: [] });
  let uploaded = tables.entries.length;
  for (const { pages, first, position } of kept.takeNews(device.epoch)) {
    device.put(first, pages, (i) => position + 64 * i);
    uploaded += pages.length;
  }
  device.put(kept.length, tables.entries, (i) => tables.entryPositions![i]!);
  const plainDevice = new FakeDevice();
  const plain = buildRunTables(chunks.map((chunk) => place(chunk, null)), model, { firstEntry: 0, moves: [] });
  plainDevice.put(0, plain.entries, (i) => plain.entryPositions![i]!);
  expect(listsOf(tables, chunks, device)).toEqual(listsOf(plain, chunks, plainDevice));
  expect({ ...tables, block: null, entries: null, entryPositions: null, hopperPages: null }).toEqual({ ...plain, block: null, entries: null, entryPositions: null, hopperPages: null });
  return uploaded;
}

interface Text {
  readonly id: number;
  readonly tokens: Int32Array;
  readonly policy: PageListPolicy;
  pages: SequencePages;
  length: number;
}

/** Texts that begin alike, grow, share, are taken back, give pages back, end and come again, on the pages of one cache. */
class Schedule {
  readonly kept = new KeptTables(PAGES);
  readonly device = new FakeDevice();
  readonly #random: SeededRandom;
  readonly #kv = new KvCache(PAGES);
  readonly #texts: Text[] = [];
  #numTexts = 0;

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
  }

  turn(): void {
    const does = this.#random.below(20);
    if (does < 2 && this.#texts.length < 7) this.#begin();
    else if (does === 2 && this.#texts.length > 0) this.#end(this.#texts[this.#random.below(this.#texts.length)]!);
    else if (does === 3) this.device.lose();
    else if (does === 4) for (const text of this.#texts) this.#takeBack(text);
    this.#step();
  }

  #begin(): void {
    const policy = policies[this.#random.below(policies.length)]!;
    // Few beginnings, so that most prefixes are known: the second to compute a page takes that of the first.
    const seed = this.#random.below(2);
    const tokens = Int32Array.from({ length: 9000 }, (_, i) => (i < 4000 ? seed : this.#numTexts));
    const match = this.#kv.match(policy.prefixNamespace, tokens, policy);
    const text: Text = { id: this.#random.below(2) === 0 ? this.#numTexts : 100 + this.#numTexts, tokens, policy, pages: this.#kv.open(match), length: match.pages.length * 64 };
    this.#numTexts++;
    this.#texts.push(text);
    if (!this.#grow(text, text.length + 1 + this.#random.below(3500))) this.#end(text);
  }

  /** What a policy gives back is not to be read again. */
  #takeBack(text: Text): void {
    if (text.policy !== policies[2]) text.length -= Math.min(this.#random.below(70), text.length - 1);
  }

  #end(text: Text): void {
    this.#texts.splice(this.#texts.indexOf(text), 1);
    this.#kv.release(text.pages);
    this.kept.forget(text.id);
  }

  #grow(text: Text, length: number): boolean {
    if (!this.#kv.reserve(text.pages, length + 1)) return false;
    text.length = Math.max(text.length, length);
    return true;
  }

  #step(): void {
    const chunks: Chunk[] = [];
    for (const text of [...this.#texts]) {
      if (this.#random.below(4) === 0) continue;
      const tokens = this.#random.below(5) === 0 ? 1 + this.#random.below(6) : 1;
      if (text.length > 8000 || !this.#grow(text, text.length + tokens)) {
        this.#end(text);
        continue;
      }
      chunks.push(chunkOf(text.id, text.pages.table.entries, { start: text.length - tokens, tokens, policy: text.policy }));
    }
    step(this.kept, chunks, this.device);
    for (const text of this.#texts) {
      this.#kv.commit(text.pages, text.tokens, text.length - (text.length % text.policy.spanTokens));
      this.#kv.releaseRange(text.pages, text.policy.releasablePages(text.length));
    }
  }
}

test.each([1, 2, 3, 4, 5, 6])('any order of growth, shared pages, returns, pages given back and ends gives what fresh lists give, %i', (seed) => {
  const schedule = new Schedule(seed);
  for (let turn = 0; turn < 400; turn++) schedule.turn();
});

test('a step uploads what is new: the pages of a table once, then those of short lists', () => {
  const [kept, device] = [new KeptTables(PAGES), new FakeDevice()];
  const pageTable = Int32Array.from({ length: 300 }, (_, i) => 300 - i);
  const at = (start: number) => step(kept, [chunkOf(1, pageTable.subarray(0, Math.floor(start / 64) + 1), { start, policy: policies[1]! })], device);
  expect(at(10_000)).toBeGreaterThan(156);
  const short = at(10_001);
  expect(short).toBeLessThan(4);
  expect(at(10_047)).toBe(short);
  expect(at(10_048)).toBe(short + 1);
  expect(at(10_500)).toBeLessThan(12);
  device.lose();
  expect(at(10_501)).toBeGreaterThan(164);
});

test('a page that changes in the middle of a table is uploaded and checked again', () => {
  const [kept, device] = [new KeptTables(PAGES), new FakeDevice()];
  const pageTable = Int32Array.from({ length: 100 }, (_, i) => i);
  const chunk = () => chunkOf(1, pageTable, { start: 6000, policy: policies[1]! });
  step(kept, [chunk()], device);
  pageTable[50] = 399;
  step(kept, [chunk()], device);
  pageTable[50] = PAGES;
  expect(() => step(kept, [chunk()], device)).toThrow(new RangeError('page 400 is outside 0..399'));
  pageTable[50] = -1;
  expect(() => step(kept, [chunk()], device)).toThrow(new RangeError('page -1 is outside 0..399'));
  pageTable[50] = 50;
  step(kept, [chunk()], device);
});

test('two tables of one sequence in a step are told apart', () => {
  const [kept, device] = [new KeptTables(PAGES), new FakeDevice()];
  const tables = [0, 150].map((first) => Int32Array.from({ length: 100 }, (_, i) => first + i));
  for (let start = 6000; start < 6003; start++) step(kept, tables.map((pageTable) => chunkOf(1, pageTable, { start })), device);
});

test('a list is a stretch of a table only within what the chunk has of it', () => {
  const kept = new KeptTables(PAGES);
  const memory = Int32Array.from({ length: 100 }, (_, i) => i);
  const pageTable = memory.subarray(20, 80);
  const table = kept.bring({ sequenceId: 1, pageTable, start: 3199, tokens: new Int32Array(1) });
  expect(table.at(pageTable.subarray(10, 50))).toBe(table.first + 10);
  expect(table.at(pageTable.subarray(10, 51))).toBeNull();
  expect(table.at(memory.subarray(19, 50))).toBeNull();
  expect(table.at(pageTable.slice(10, 50))).toBeNull();
});

test('a released entry may lie in a table, not in a list', () => {
  const kept = new KeptTables(PAGES);
  const pageTable = Int32Array.from({ length: 100 }, (_, i) => (i < 40 ? -1 : i));
  const table = kept.bring({ sequenceId: 1, pageTable, start: 6000, tokens: new Int32Array(1) });
  table.check(pageTable.subarray(40, 90));
  table.check(pageTable.subarray(60, 94));
  expect(() => { table.check(pageTable.subarray(39, 90)); }).toThrow(RangeError);
  expect(() => { table.check(pageTable.subarray(0, 20)); }).toThrow(RangeError);
});
