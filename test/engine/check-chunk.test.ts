// Chunks that no engine may run.
import { expect, test } from 'vitest';
import { checkChunk } from '../../engine/check-chunk.ts';
import type { Chunk } from '../../engine/engine.ts';
import type { PagePlan } from '../../kvcache/page-lists/page-list.ts';
import { listOf } from './texts.ts';

const geometry = { layers: 2, kvHeads: 1, vocab: 50, pageIds: 4 };
const plan = listOf([0, 1], 100);
const chunk: Chunk = {
  phase: 'prefill',
  sequenceId: 1, tokens: Int32Array.of(3, 49), start: 100, pageTable: Int32Array.of(0, 1), promptTokens: 102, logits: 'last',
  attention: { classes: [plan], classOf: new Uint8Array(2), selection: 'fresh' },
};

function withPlan(change: Partial<PagePlan>): Partial<Chunk> {
  return { attention: { ...chunk.attention, classes: [{ ...plan, ...change }] } };
}

test('a sound chunk passes', () => {
  expect(() => { checkChunk(chunk, geometry); }).not.toThrow();
});

test('pages behind the chunk may be gone from the page table', () => {
  expect(() => { checkChunk({ ...chunk, pageTable: Int32Array.of(-1, 1), ...withPlan({ fixed: Int32Array.of(1), tokens: 36 }) }, geometry); }).not.toThrow();
});

test('lists may move as many pages as engines keep turned copies of', () => {
  const moving = (numPages: number): Chunk => {
    const list = { ...listOf(new Int32Array(numPages), numPages * 64), positionDelta: new Int32Array(numPages).fill(64) };
    return { ...chunk, start: numPages * 64, pageTable: new Int32Array(numPages + 1), attention: { ...chunk.attention, classes: [list] } };
  };
  expect(() => { checkChunk(moving(256), geometry); }).not.toThrow();
  expect(() => { checkChunk(moving(257), geometry); }).toThrow(new RangeError('the lists of a chunk move 257 pages, at most 256 are possible'));
});

test.each<[string, Partial<Chunk>, string]>([
  ['no tokens', { tokens: new Int32Array(0) }, 'a chunk needs at least 1 token, got 0'],
  ['a token beyond the vocabulary', { tokens: Int32Array.of(50) }, 'token 50 is outside 0..49'],
  ['a page table that is too short', { start: 127 }, 'page table has 2 pages, the chunk ends in page 2'],
  ['a released page to write to', { pageTable: Int32Array.of(0, -1) }, 'page -1 is outside 0..3'],
  ['classes for another model', { attention: { ...chunk.attention, classOf: new Uint8Array(3) } }, 'classOf has 3 entries for 2 KV heads'],
  ['a class that is not there', { attention: { ...chunk.attention, classOf: Uint8Array.of(0, 1) } }, 'head class 1 is outside 0..0'],
  ['a page that is not there', withPlan({ fixed: Int32Array.of(0, 4) }), 'page 4 is outside 0..3'],
  ['a released candidate', withPlan({ candidates: Int32Array.of(-1) }), 'page -1 is outside 0..3'],
  ['more picks than candidates', withPlan({ pick: 1 }), 'pick is 1 of 0 candidates'],
  ['deltas for another list', withPlan({ positionDelta: Int32Array.of(0) }), 'positionDelta has 1 entries for 2 fixed pages'],
  ['more tokens than its pages hold', withPlan({ tokens: 129 }), 'a list of 2 + 0 pages cannot have 129 tokens'],
  ['fewer tokens than full pages hold', withPlan({ tokens: 64 }), 'a list of 2 + 0 pages cannot have 64 tokens'],
  ['tokens of the future', withPlan({ tokens: 101 }), 'a list has 101 tokens, the sequence has 100 before the chunk'],
])('%s', (_, change, message) => {
  expect(() => { checkChunk({ ...chunk, ...change }, geometry); }).toThrow(message);
});
