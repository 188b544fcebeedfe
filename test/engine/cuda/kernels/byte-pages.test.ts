// Pages of KV memory in 8 bits: what is written is the nearest that a scale for each token allows and does not depend on
// chunks, what is read of it is the same everywhere, and attention over it is attention over the same numbers in 16 bits.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../../../kvcache/page-lists/page-list.ts';
import { bfloat16, KernelBench, reasonWithoutDevice, type PageRows } from './kernel-bench.ts';
import { headPad, offsetInPage, pageElements } from './page-layout.ts';
import type { DeviceBuffer } from '../../../../engine/cuda/device-memory.ts';
import { float32 } from '../bfloat16.ts';

const PAGES = 8;
const KV_HEADS = 2;
const GROUP = 4;
const TOKENS = 333;
const formats = {
  // Half a step of the scale.
  int8: { define: 'KV_INT8', number: (byte: number) => (byte << 24) >> 24, rounding: (most: number) => most / 254 },
  // Half of the last of four bits, or half of the smallest number.
  fp8: { define: 'KV_FP8', number: fromFp8, rounding: (most: number, size: number) => Math.max(most / 448 / 1024, size / 16) },
} as const;

function fromFp8(byte: number): number {
  const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
  const size = exponent === 0 ? mantissa / 512 : (8 + mantissa) * 2 ** (exponent - 10);
  return byte & 0x80 ? -size : size;
}

/** Bytes of a page of one KV head: the channels of its tokens, in rows of 64, then a scale for each token. */
const pageBytes = (headDim: number): number => pageElements(headDim) + 4 * PAGE_TOKENS;

describe.skipIf(reasonWithoutDevice !== null).each(Object.keys(formats) as (keyof typeof formats)[])('pages in %s', (format) => {
  const { define, rounding, number } = formats[format];
  let bench: KernelBench;
  let rows: PageRows;
  beforeAll(() => {
    bench = new KernelBench();
    rows = bench.pageRows(PAGES, KV_HEADS);
  });
  afterAll(() => { bench.close(); });

  interface Memory { keys: DeviceBuffer; values: DeviceBuffer; statistics: DeviceBuffer }

  const table = [5, 0, 7, 2, 4, 1];
  const bytesOf = (headDim: number): number => rows.count * pageBytes(headDim);
  const newMemory = (headDim: number): Memory => ({
    keys: bench.poisoned(bytesOf(headDim)), values: bench.poisoned(bytesOf(headDim)), statistics: bench.poisoned(rows.count * 4 * 2 * headDim * 2),
  });

  /** Writes tokens start..end of qkv, in one chunk. */
  function write(memory: Memory, headDim: number, { qkv, turns, start, end }: { qkv: Float32Array; turns: Float32Array; start: number; end: number }): DeviceBuffer {
    const width = (KV_HEADS * GROUP + 2 * KV_HEADS) * headDim;
    const runs: number[] = [];
    for (let at = start; at < end;) {
      const count = Math.min(LOGICAL_PAGE_TOKENS - at % LOGICAL_PAGE_TOKENS, end - at);
      const index = Math.floor(at / PAGE_TOKENS);
      runs.push(at - start, count, table[index]! * PAGE_TOKENS + at % PAGE_TOKENS, Math.min(PAGE_TOKENS, end - index * PAGE_TOKENS));
      at += count;
    }
    const written = bench.up(bfloat16(qkv.subarray(start * width, end * width)));
    bench.kernel({ file: 'rope_write', name: 'rope_write', parameters: 'pipppfppppppiii', defines: { HEAD_DIM: headDim, [define]: 1 } }).launch(
      { grid: [runs.length / 4, KV_HEADS], block: [128] }, written.address, width, 0n, 0n, 0n, 1e-6,
      bench.up(turns.subarray(start * headDim, end * headDim)).address, bench.ints(runs).address, memory.keys.address, memory.values.address, memory.statistics.address, ...rows.args, KV_HEADS, GROUP);
    return written;
  }

  /** What is to be read of a token, as bf16 holds it. [headDim] */
  function read(memory: ArrayBuffer, headDim: number, { page, head, slot }: { page: number; head: number; slot: number }): Float32Array {
    const at = rows.of(page, head) * pageBytes(headDim);
    const bytes = new Uint8Array(memory, at, pageElements(headDim));
    const scale = new Float32Array(memory, at + pageElements(headDim), PAGE_TOKENS)[slot]!;
    return float32(bfloat16(Float32Array.from({ length: headDim }, (_, c) => Math.fround(number(bytes[(Math.floor(c / 64) * PAGE_TOKENS + slot) * 64 + c % 64]!) * scale))));
  }

  /** As near as the format allows; what is read is rounded to bf16 then. */
  function expectNear(got: Float32Array, wanted: Float32Array | Float64Array): void {
    const most = Math.max(...Array.from(wanted, Math.abs));
    got.forEach((x, c) => {
      const size = Math.abs(wanted[c]!);
      const ofByte = 1.001 * rounding(most, size);
      expect(Math.abs(x - wanted[c]!), `seed ${bench.seed}`).toBeLessThanOrEqual(ofByte + (size + ofByte) / 256);
    });
  }

  function turnedKey(key: Float32Array, turns: Float32Array): Float64Array {
    const half = key.length / 2;
    return Float64Array.from(key, (value, i) => {
      const [cos, sin] = [turns[2 * (i % half)]!, turns[2 * (i % half) + 1]!];
      return i < half ? value * cos - key[i + half]! * sin : value * cos + key[i - half]! * sin;
    });
  }

  describe.each([128, 64, 16, 96, 6, 256])('heads of %i', (headDim) => {
    const width = (KV_HEADS * GROUP + 2 * KV_HEADS) * headDim;
    const places = Array.from({ length: TOKENS }, (_, position) => ({ position, page: table[Math.floor(position / PAGE_TOKENS)]!, slot: position % PAGE_TOKENS }));
    let text: { qkv: Float32Array; turns: Float32Array };
    let memory: Memory;
    beforeAll(() => {
      const scales = Float32Array.from({ length: TOKENS }, () => 2 ** (bench.random.below(12) - 6));
      text = { qkv: bench.normal(TOKENS * width).map((x, i) => x * scales[Math.floor(i / width)]!), turns: bench.normal(TOKENS * headDim) };
      memory = newMemory(headDim);
      write(memory, headDim, { ...text, start: 0, end: TOKENS });
    });

    test('hold keys and values as near as a scale for each token allows, and the statistics of what is read', () => {
      const [keys, values] = [bench.memory.read(memory.keys), bench.memory.read(memory.values)];
      const statistics = bench.elements(memory.statistics, rows.count * 4 * 2 * headDim);
      for (let head = 0; head < KV_HEADS; head++) {
        for (const { position, page, slot } of places) {
          const vector = (index: number) => text.qkv.subarray(position * width + index * headDim, position * width + (index + 1) * headDim);
          const key = turnedKey(vector(KV_HEADS * GROUP + head), text.turns.subarray(position * headDim, (position + 1) * headDim));
          const value = vector(KV_HEADS * GROUP + KV_HEADS + head);
          for (const [memory, wanted] of [[keys, key], [values, value]] as const) {
            const got = read(memory, headDim, { page, head, slot });
            expectNear(got, wanted);
          }
        }
        for (let logical = 0; logical * LOGICAL_PAGE_TOKENS < TOKENS; logical++) {
          const page = table[Math.floor(logical / 4)]!;
          const tokens = places.slice(logical * LOGICAL_PAGE_TOKENS, (logical + 1) * LOGICAL_PAGE_TOKENS).map(({ slot }) => read(keys, headDim, { page, head, slot }));
          const at = (rows.of(page, head) * 4 + logical % 4) * 2 * headDim;
          for (let c = 0; c < headDim; c++) {
            expect([statistics[at + c], statistics[at + headDim + c]]).toEqual([Math.min(...tokens.map((token) => token[c]!)), Math.max(...tokens.map((token) => token[c]!))]);
          }
        }
        // What lies behind the last value is 0, whatever its bytes.
        const tail = new Float32Array(values, rows.of(places.at(-1)!.page, head) * pageBytes(headDim) + pageElements(headDim), PAGE_TOKENS).subarray(TOKENS % PAGE_TOKENS);
        expect([...tail].every((scale) => scale === 0)).toBe(true);
      }
    });

    test('hold the same to the bit in whatever chunks they were written, over what was forgotten too', () => {
      const other = newMemory(headDim);
      write(other, headDim, { qkv: text.qkv.map((x) => x * 3), turns: text.turns, start: 0, end: 200 });
      for (const [start, end] of [[0, 100], [100, 101], [101, 128], [128, 190], [185, 320], [320, TOKENS]] as const) write(other, headDim, { ...text, start, end });
      for (const [one, two] of [[memory.keys, other.keys], [memory.values, other.values]] as const) {
        const [a, b] = [bench.memory.read(one), bench.memory.read(two)];
        for (const { page, slot } of places) for (let head = 0; head < KV_HEADS; head++) expect(read(a, headDim, { page, head, slot })).toEqual(read(b, headDim, { page, head, slot }));
      }
      expect(bench.memory.read(memory.statistics)).toEqual(bench.memory.read(other.statistics));
    });

    test('widened and read as they are give the same attention, to the bit', () => {
      const elements = table.length * KV_HEADS * pageElements(headDim);
      const [wideKeys, wideValues, wideRows] = [bench.poisoned(elements * 2), bench.poisoned(elements * 2), bench.poisoned(PAGES * KV_HEADS * 4)];
      bench.kernel({ file: 'widen_pages', name: 'widen_pages', parameters: 'pppippppi', defines: { HEAD_DIM: headDim, [define]: 1 } }).launch(
        { grid: [table.length, KV_HEADS], block: [128] }, memory.keys.address, memory.values.address, ...rows.args, bench.ints(table).address, wideKeys.address, wideValues.address, wideRows.address, KV_HEADS);
      const wide = bench.elements(wideKeys, elements);
      const bytes = bench.memory.read(memory.keys);
      for (const { page, slot } of places) {
        const at = (table.indexOf(page) * KV_HEADS + 1) * pageElements(headDim);
        expect(Float32Array.from({ length: headDim }, (_, c) => wide[at + offsetInPage(slot, c)]!)).toEqual(read(bytes, headDim, { page, head: 1, slot }));
        for (let c = headDim; c < headPad(headDim); c++) expect(wide[at + offsetInPage(slot, c)]).toBe(0);
      }
      for (const tokens of [1, 5, 70]) {
        for (const splits of [1, 3]) {
          const [one, two] = [attend(headDim, { keys: memory.keys, values: memory.values, pageRows: rows.args, tokens, splits, isBytes: true }), attend(headDim, { keys: wideKeys, values: wideValues, pageRows: [wideRows.address, KV_HEADS], tokens, splits, isBytes: false })];
          expect(one.some(Number.isNaN)).toBe(false);
          expect(one).toEqual(two);
        }
      }
    });

    test('turned to another position are keys of that position, values as they were', () => {
      const turns = Float32Array.from({ length: headDim }, (_, i) => (i % 2 === 0 ? Math.cos(i + 1) : Math.sin(i)));
      bench.kernel({ file: 'turn_pages', name: 'turn_pages', parameters: 'pppppi', defines: { HEAD_DIM: headDim, [define]: 1 } }).launch(
        { grid: [1, KV_HEADS, 1], block: [128] }, memory.keys.address, memory.values.address, rows.args[0], bench.ints([table[0]!, 6, 0, 0]).address, bench.up(turns).address, KV_HEADS);
      const [keys, values] = [bench.memory.read(memory.keys), bench.memory.read(memory.values)];
      for (let slot = 0; slot < PAGE_TOKENS; slot++) {
        const [from, to] = [{ page: table[0]!, head: 1, slot }, { page: 6, head: 1, slot }];
        expectNear(read(keys, headDim, to), turnedKey(read(keys, headDim, from), turns));
        expect(read(values, headDim, to)).toEqual(read(values, headDim, from));
      }
    });

    /** The last tokens of the text read all of it. [tokens, heads, headDim] */
    function attend(dim: number, { keys, values, pageRows, tokens, splits, isBytes }: { keys: DeviceBuffer; values: DeviceBuffer; pageRows: PageRows['args']; tokens: number; splits: number; isBytes: boolean }): Float32Array {
      const start = TOKENS - tokens;
      const heads = KV_HEADS * GROUP;
      const own = table.slice(Math.floor(start / PAGE_TOKENS));
      const fixed = table.slice(0, Math.ceil(start / PAGE_TOKENS));
      const units = Array.from({ length: Math.ceil(tokens * GROUP / 64) }, (_, block) => [0, block, 0, 0]);
      const [pad, stages] = [headPad(dim), headPad(dim) > 128 ? 2 : 3];
      const q = bench.up(bfloat16(text.qkv.subarray(start * width, TOKENS * width)));
      const out = bench.poisoned(tokens * heads * dim * 2);
      bench.kernel({ file: 'attend', name: 'attend', parameters: 'pippppipppppppippiiiiif', defines: { HEAD_DIM: dim, ...(isBytes ? { [define]: 1 } : {}) } }).launch(
        { grid: [splits, KV_HEADS, units.length], block: [128], shared: isBytes ? Math.max(49_152, 2 * 128 * (pad + 4) + 256 * pad) : stages * 256 * pad },
        q.address, width, out.address, keys.address, values.address, ...pageRows, bench.ints(units.flat()).address,
        bench.ints([0, tokens, start, 0, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).address, bench.ints([own.length, fixed.length, 0, 0, 0, start, 0, 0]).address,
        bench.ints([...own, ...fixed]).address, 0n, bench.up(new Uint8Array(KV_HEADS)).address, 0n, 1,
        bench.poisoned(units.length * KV_HEADS * splits * 64 * (pad + 4) * 4).address, bench.up(new Int32Array(units.length * KV_HEADS)).address,
        0, 1, KV_HEADS, GROUP, 0, 1 / Math.sqrt(dim));
      return bench.elements(out, tokens * heads * dim);
    }
  });
});
