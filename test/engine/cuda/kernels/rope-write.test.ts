// Bias, head norm, RoPE, pages and statistics in one kernel, against float64; and copies of pages that are turned.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../../../kvcache/page-lists/page-list.ts';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';
import { headPad, offsetInPage, pageElements } from './page-layout.ts';

const EPS = 1e-6;
const ROUNDING = 5e-3;
const PAGES = 7;

/** [first row, count, slot in memory, first slot of the page that stays unwritten] for each logical page of a chunk. */
function runsOf(start: number, tokens: number, table: readonly number[]): number[] {
  const runs: number[] = [];
  const end = start + tokens;
  for (let position = start; position < end;) {
    const count = Math.min(LOGICAL_PAGE_TOKENS - position % LOGICAL_PAGE_TOKENS, end - position);
    const index = Math.floor(position / PAGE_TOKENS);
    runs.push(position - start, count, table[index]! * PAGE_TOKENS + position % PAGE_TOKENS, Math.min(PAGE_TOKENS, end - index * PAGE_TOKENS));
    position += count;
  }
  return runs;
}

function turned(x: Float64Array, turns: Float32Array, row: number): Float64Array {
  const half = x.length / 2;
  return Float64Array.from(x, (value, i) => {
    const pair = i % half;
    const [cos, sin] = [turns[(row * half + pair) * 2]!, turns[(row * half + pair) * 2 + 1]!];
    return i < half ? value * cos - x[i + half]! * sin : value * cos + x[i - half]! * sin;
  });
}

function normalized(x: Float64Array, weight: Float32Array): Float64Array {
  const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + EPS);
  return x.map((value, i) => value * scale * weight[i]!);
}

describe.skipIf(reasonWithoutDevice !== null)('writing to pages', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  test.each([[128, 4, true, false], [64, 3, false, true], [16, 1, false, false], [6, 8, true, true], [96, 5, true, false], [256, 2, false, true]])(
    'heads of %i, %i for a KV head, norms %s, bias %s', (headDim, group, hasNorms, hasBias) => {
      const kvHeads = 2;
      const heads = kvHeads * group;
      const width = (heads + 2 * kvHeads) * headDim;
      const rows = bench.pageRows(PAGES, kvHeads);
      const elements = rows.count * pageElements(headDim);
      const [keys, values] = [bench.poisoned(elements * 2), bench.poisoned(elements * 2)];
      const numStatistics = rows.count * 4 * 2 * headDim;
      const statistics = bench.poisoned(numStatistics * 2);
      const [bias, qNorm, kNorm] = [bench.normal(width), bench.normal(headDim), bench.normal(headDim)];
      const given = (wanted: boolean, x: Float32Array) => (wanted ? bench.up(bfloat16(x)).address : 0n);
      const table = bench.random.shuffled([0, 1, 2, 3, 4, 5, 6]).slice(0, 4);
      const kernel = bench.kernel({ file: 'rope_write', name: 'rope_write', parameters: 'pipppfppppppiii', defines: { HEAD_DIM: headDim } });

      // A prompt, steps, a step back, over borders of both kinds of page.
      for (const [start, tokens] of [[0, 100], [100, 1], [101, 3], [90, 13], [103, 1], [104, 90], [128, 5]] as const) {
        const x = bench.normal(tokens * width);
        const turns = bench.normal(tokens * headDim);
        const qkv = bench.up(bfloat16(x));
        const runs = runsOf(start, tokens, table);
        kernel.launch(
          { grid: [runs.length / 4 + 1, kvHeads], block: [128] }, qkv.address, width, given(hasBias, bias), given(hasNorms, qNorm), given(hasNorms, kNorm), EPS,
          bench.up(turns).address, bench.ints([...runs, 0, 0, 0, 0]).address, keys.address, values.address, statistics.address, ...rows.args, kvHeads, group);
        const [gotQkv, gotKeys, gotValues] = [bench.elements(qkv, tokens * width), bench.elements(keys, elements), bench.elements(values, elements)];
        const gotStatistics = bench.elements(statistics, numStatistics);
        const label = `tokens ${start}..${start + tokens}, seed ${bench.seed}`;

        for (let row = 0; row < tokens; row++) {
          const vector = (head: number) => Float64Array.from({ length: headDim }, (_, i) => x[row * width + head * headDim + i]! + (hasBias ? bias[head * headDim + i]! : 0));
          for (let head = 0; head < heads; head++) {
            const wanted = turned(hasNorms ? normalized(vector(head), qNorm) : vector(head), turns, row);
            expect(bench.error(gotQkv.subarray(row * width + head * headDim, row * width + (head + 1) * headDim), wanted), label).toBeLessThan(ROUNDING);
          }
          const position = start + row;
          for (let head = 0; head < kvHeads; head++) {
            const page = rows.of(table[Math.floor(position / PAGE_TOKENS)]!, head) * pageElements(headDim);
            const read = (memory: Float32Array) => Float32Array.from({ length: headPad(headDim) }, (_, channel) => memory[page + offsetInPage(position % PAGE_TOKENS, channel)]!);
            const key = turned(hasNorms ? normalized(vector(heads + head), kNorm) : vector(heads + head), turns, row);
            expect(bench.error(read(gotKeys), [...key, ...new Float64Array(headPad(headDim) - headDim)]), label).toBeLessThan(ROUNDING);
            expect(bench.error(read(gotValues), [...vector(heads + kvHeads + head), ...new Float64Array(headPad(headDim) - headDim)]), label).toBeLessThan(ROUNDING);
          }
        }
        checkLogicalPages(start, start + tokens);
        const written = new Set(table.slice(0, Math.ceil((start + tokens) / PAGE_TOKENS)).flatMap((page) => [0, 1].map((head) => rows.of(page, head))));
        for (let i = 0; i < elements; i++) {
          if (written.has(Math.floor(i / pageElements(headDim)))) expect(Number.isNaN(gotValues[i]), label).toBe(false);
        }

        /** Statistics are those of the keys as they lie in memory, to the bit. */
        function checkLogicalPages(from: number, end: number): void {
          for (let logical = Math.floor(from / LOGICAL_PAGE_TOKENS); logical * LOGICAL_PAGE_TOKENS < end; logical++) {
            for (let head = 0; head < kvHeads; head++) {
              const page = rows.of(table[Math.floor(logical / 4)]!, head);
              for (let channel = 0; channel < headDim; channel++) {
                const stored = Array.from({ length: Math.min(LOGICAL_PAGE_TOKENS, end - logical * LOGICAL_PAGE_TOKENS) }, (_, i) =>
                  gotKeys[page * pageElements(headDim) + offsetInPage(logical % 4 * LOGICAL_PAGE_TOKENS + i, channel)]!);
                const at = ((page * 4 + logical % 4) * 2) * headDim + channel;
                expect([gotStatistics[at], gotStatistics[at + headDim]], label).toEqual([Math.min(...stored), Math.max(...stored)]);
              }
            }
          }
        }
      }
      const unused = [0, 1, 2, 3, 4, 5, 6].filter((page) => !table.includes(page));
      for (const memory of [keys, values]) {
        const bits = new Uint16Array(bench.memory.read(memory, elements * 2));
        for (const row of [0, ...unused.flatMap((page) => [0, 1].map((head) => rows.of(page, head)))]) {
          expect(bits.subarray(row * pageElements(headDim), (row + 1) * pageElements(headDim)).every((word) => word === 0xffff)).toBe(true);
        }
      }
    });

  test.each([[128, 2, 3], [6, 2, 1], [64, 1, 2]])('turned copies: heads of %i, %i KV heads, %i layers', (headDim, kvHeads, layers) => {
    const pages = 4;
    const rows = bench.pageRows(pages, layers * kvHeads);
    const half = headDim / 2;
    const [keys, values] = [bench.normal(rows.count * pageElements(headDim)), bench.normal(rows.count * pageElements(headDim))];
    const [keysAt, valuesAt] = [bench.up(bfloat16(keys)), bench.up(bfloat16(values))];
    const turns = bench.normal(2 * headDim);
    bench.kernel({ file: 'turn_pages', name: 'turn_pages', parameters: 'pppppi', defines: { HEAD_DIM: headDim } }).launch(
      { grid: [2, kvHeads, layers], block: [128] }, keysAt.address, valuesAt.address, rows.args[0], bench.ints([1, 3, 1, 0, 0, -1, 0, 0]).address, bench.up(turns).address, kvHeads);
    const [gotKeys, gotValues] = [bench.elements(keysAt, keys.length), bench.elements(valuesAt, values.length)];
    for (let head = 0; head < layers * kvHeads; head++) {
      const [from, to] = [1, 3].map((page) => rows.of(page, head) * pageElements(headDim)) as [number, number];
      expect(gotValues.subarray(to, to + pageElements(headDim))).toEqual(values.subarray(from, from + pageElements(headDim)));
      for (let token = 0; token < PAGE_TOKENS; token++) {
        const key = Float64Array.from({ length: headDim }, (_, channel) => keys[from + offsetInPage(token, channel)]!);
        const got = Array.from({ length: headDim }, (_, channel) => gotKeys[to + offsetInPage(token, channel)]!);
        expect(bench.error(got, turned(key, turns.subarray(2 * half), 0)), `seed ${bench.seed}`).toBeLessThan(ROUNDING);
      }
      for (const page of [0, 1, 2]) {
        const at = rows.of(page, head) * pageElements(headDim);
        expect(gotKeys.subarray(at, at + pageElements(headDim))).toEqual(keys.subarray(at, at + pageElements(headDim)));
      }
    }
  });
});
