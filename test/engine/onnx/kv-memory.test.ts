// Page statistics of the CPU engine: right for any order of writing, and bounds of every score.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MEMORY_NAMES, STATISTICS_OFFSET } from '../../../engine/onnx/graph-interface.ts';
import { KvMemory } from '../../../engine/onnx/kv-memory.ts';

const geometry = { layers: 1, kvHeads: 2, headDim: 8, precision: 'int8', pages: 3, ids: 12 } as const;
const width = geometry.kvHeads * geometry.headDim;
const int8 = fc.integer({ min: -127, max: 127 });

/** Upper bound of q.k over a logical page, from the stored statistics. */
function bound(statistics: Uint8Array, row: number, logicalPage: number, query: readonly number[]): number {
  const at = (row * 4 + logicalPage) * 2 * geometry.headDim;
  return query.reduce((sum, q, c) => {
    const max = statistics[at + c]! - STATISTICS_OFFSET;
    const min = statistics[at + geometry.headDim + c]! - STATISTICS_OFFSET;
    return sum + Math.max(q * max, q * min);
  }, 0);
}

test('the bound of a logical page is at least every score in it, whatever the page held before', () => {
  const keysOf = fc.integer({ min: 1, max: 64 }).chain((tokens) => fc.array(int8, { minLength: tokens * width, maxLength: tokens * width }));
  const query = fc.array(fc.integer({ min: -9, max: 9 }), { minLength: geometry.headDim, maxLength: geometry.headDim });
  fc.assert(fc.property(keysOf, query, fc.integer({ min: 1, max: 20 }), (values, q, chunkTokens) => {
    const memory = new KvMemory(geometry);
    memory.poison(1, 127);
    const keys = Int8Array.from(values);
    const tokens = keys.length / width;
    for (let first = 0; first < tokens; first += chunkTokens) {
      const count = Math.min(chunkTokens, tokens - first);
      memory.write(0, { keys, values: keys, first, count }, { start: first, pageTable: Int32Array.of(1) });
    }
    const statistics = memory.tensors[MEMORY_NAMES.statistics]!.data as Uint8Array;
    for (let token = 0; token < tokens; token++) {
      for (let head = 0; head < geometry.kvHeads; head++) {
        const from = (token * geometry.kvHeads + head) * geometry.headDim;
        const score = q.reduce((sum, value, c) => sum + value * keys[from + c]!, 0);
        expect(bound(statistics, memory.rowOf(0, head, 1), Math.floor(token / 16), q)).toBeGreaterThanOrEqual(score);
      }
    }
  }));
});

test('statistics are the bounds exactly: they do not remember poison', () => {
  const memory = new KvMemory(geometry);
  memory.poison(0, 127);
  const keys = new Int8Array(3 * width).map((_, i) => (i % 2 === 0 ? 5 : -7));
  memory.write(0, { keys, values: keys, first: 0, count: 3 }, { start: 16, pageTable: Int32Array.of(0) });
  const statistics = memory.tensors[MEMORY_NAMES.statistics]!.data as Uint8Array;
  const second = 1 * 2 * geometry.headDim;
  expect([...statistics.subarray(second, second + 4)]).toEqual([133, 121, 133, 121]);
});

test('turning a page forward and back gives its keys again, within rounding', () => {
  const memory = new KvMemory(geometry);
  const keys = new Int8Array(64 * width).map((_, i) => ((i * 37) % 120) - 60);
  memory.write(0, { keys, values: keys, first: 0, count: 64 }, { start: 0, pageTable: Int32Array.of(0) });
  const frequencies = Float64Array.of(1, 0.1, 0.01, 0.001);
  memory.copyRotated({ from: 0, to: 1, delta: 1000, frequencies });
  memory.copyRotated({ from: 1, to: 2, delta: -1000, frequencies });
  const pool = memory.tensors[MEMORY_NAMES.keys]!.data as Int8Array;
  const size = 64 * geometry.headDim;
  const keysOf = (page: number): Int8Array => {
    const rows = [0, 1].map((head) => memory.rowOf(0, head, page));
    return Int8Array.from(rows.flatMap((row) => [...pool.subarray(row * size, (row + 1) * size)]));
  };
  const [own, turned, back] = [0, 1, 2].map(keysOf) as [Int8Array, Int8Array, Int8Array];
  expect(Math.max(...own.map((key, i) => Math.abs(key - back[i]!)))).toBeLessThanOrEqual(2);
  expect(turned).not.toEqual(own);
});

test('keys written after a truncation count as if the forgotten ones had never been', () => {
  const keysFrom = (seed: number, tokens: number) => new Int8Array(tokens * width).map((_, i) => ((i * 37 + seed * 11) % 200) - 100);
  const at = (start: number) => ({ start, pageTable: Int32Array.of(1) });
  fc.assert(fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 20 }), (kept, forgotten) => {
    const [plain, truncated] = [new KvMemory(geometry), new KvMemory(geometry)];
    const write = (memory: KvMemory, keys: Int8Array, start: number) => { memory.write(0, { keys, values: keys, first: 0, count: keys.length / width }, at(start)); };
    for (const memory of [plain, truncated]) write(memory, keysFrom(1, kept), 0);
    write(truncated, keysFrom(2, forgotten), kept);
    truncated.truncate(1, kept);
    for (const memory of [plain, truncated]) write(memory, keysFrom(3, 64 - kept), kept);
    for (const [name, { data }] of Object.entries(plain.tensors)) expect(truncated.tensors[name]!.data).toEqual(data);
  }), { numRuns: 50 });
});
