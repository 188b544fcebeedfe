// Attention over page lists by both kernels, cut into any number of parts, against float64. Memory that no token of the
// text wrote is NaN.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PAGE_TOKENS } from '../../../../kvcache/page-lists/page-list.ts';
import { bfloat16, KernelBench, reasonWithoutDevice, type PageRows } from './kernel-bench.ts';
import { headPad, offsetInPage, pageElements } from './page-layout.ts';

const PAGES = 40;
const LAYERS = 2;
const LAYER = 1;
/** Weights are rounded to bf16 before they meet the values. */
const TOLERANCE = 6e-3;

interface Shape { readonly headDim: number; readonly kvHeads: number; readonly group: number }

interface Case {
  readonly start: number;
  readonly tokens: number;
  /** Indices in the text of the pages that are always read. */
  readonly fixed: readonly number[];
  /** For each KV head (or query head) the indices of the pages that were picked. */
  readonly picked?: readonly (readonly number[])[];
  readonly perQueryHead?: boolean;
  readonly window?: number;
}

const pagesBefore = (start: number): number[] => Array.from({ length: Math.ceil(start / PAGE_TOKENS) }, (_, i) => i);
const dense = (start: number, tokens: number): Case => ({ start, tokens, fixed: pagesBefore(start) });

class Text {
  readonly table: readonly number[];
  /** [positions, kvHeads, headDim] */
  readonly keys: Float32Array;
  readonly values: Float32Array;
  readonly shape: Shape;
  readonly at: Case;

  constructor(bench: KernelBench, shape: Shape, at: Case) {
    this.shape = shape;
    this.at = at;
    const positions = at.start + at.tokens;
    this.table = bench.random.shuffled(Array.from({ length: PAGES }, (_, i) => i)).slice(0, Math.ceil(positions / PAGE_TOKENS));
    this.keys = bench.normal(positions * shape.kvHeads * shape.headDim);
    this.values = bench.normal(positions * shape.kvHeads * shape.headDim);
  }

  /** Memory as rope_write leaves it: NaN all over but for the tokens, and zeros behind the last token's values. */
  memory(numbers: Float32Array, rows: PageRows, behind: number): Float32Array {
    const { kvHeads, headDim } = this.shape;
    const memory = new Float32Array(rows.count * pageElements(headDim)).fill(NaN);
    const positions = numbers.length / kvHeads / headDim;
    this.table.forEach((page, index) => {
      for (let head = 0; head < kvHeads; head++) {
        for (let slot = 0; slot < PAGE_TOKENS; slot++) {
          const position = index * PAGE_TOKENS + slot;
          for (let channel = 0; channel < headPad(headDim); channel++) {
            const value = position >= positions ? behind : channel < headDim ? numbers[(position * kvHeads + head) * headDim + channel]! : 0;
            memory[rows.of(page, LAYER * kvHeads + head) * pageElements(headDim) + offsetInPage(slot, channel)] = value;
          }
        }
      }
    });
    return memory;
  }

  /** softmax(q.k / sqrt(headDim)) v over what the query may read. [headDim] */
  mix(query: Float32Array, head: number, token: number): Float64Array {
    const { kvHeads, headDim, group } = this.shape;
    const { start, fixed, picked, perQueryHead = false, window = 0 } = this.at;
    const kvHead = Math.floor(head / group);
    const listed = [...(picked?.[perQueryHead ? head : kvHead] ?? []), ...fixed];
    const positions = [
      ...listed.flatMap((page) => Array.from({ length: PAGE_TOKENS }, (_, slot) => page * PAGE_TOKENS + slot)).filter((position) => position < start),
      ...Array.from({ length: token + 1 }, (_, i) => start + i),
    ].filter((position) => window === 0 || position > start + token - window);
    const from = (position: number) => (position * kvHeads + kvHead) * headDim;
    const scores = positions.map((position) => query.reduce((sum, x, i) => sum + x * this.keys[from(position) + i]!, 0) / Math.sqrt(headDim));
    const most = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - most));
    const total = weights.reduce((a, b) => a + b, 0);
    return Float64Array.from({ length: headDim }, (_, i) => positions.reduce((sum, position, j) => sum + weights[j]! / total * this.values[from(position) + i]!, 0));
  }
}

describe.skipIf(reasonWithoutDevice !== null)('attention', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  function tablesOf({ shape, at, table }: Text) {
    const { kvHeads, group } = shape;
    const heads = kvHeads * group;
    const { start, tokens, fixed, picked, perQueryHead = false } = at;
    const own = table.slice(Math.floor(start / PAGE_TOKENS));
    const pick = picked?.[0]?.length ?? 0;
    const lacking = fixed.length > 0 && fixed.at(-1) === Math.floor((start - 1) / PAGE_TOKENS) ? Math.ceil(start / PAGE_TOKENS) * PAGE_TOKENS - start : 0;
    const maxPick = pick + 1;
    const selection = new Int32Array(LAYERS * heads * maxPick).fill(2 ** 30);
    for (let head = 0; head < heads && pick > 0; head++) {
      selection.set(picked![perQueryHead ? head : Math.floor(head / group)]!.map((page) => table[page]!), (LAYER * heads + head) * maxPick);
    }
    return {
      maxPick,
      chunks: bench.ints([0, tokens, start, 0, 0, 0, 1, 0, 0, perQueryHead ? 1 : 0, 0, 0, 0, 0, 0, 0]),
      lists: bench.ints([own.length, fixed.length, 0, 0, pick, (pick + fixed.length) * PAGE_TOKENS - lacking, perQueryHead ? 1 : 0, 0]),
      entries: bench.ints([...own, ...fixed.map((page) => table[page]!)]),
      entryPositions: bench.ints([...own.map(() => -1), ...fixed.map((page) => page * PAGE_TOKENS)]),
      classOf: bench.up(new Uint8Array(LAYERS * kvHeads)),
      selection: bench.up(selection),
    };
  }

  function check(shape: Shape, at: Case): void {
    const { headDim, kvHeads, group } = shape;
    const { tokens, perQueryHead = false, window = 0 } = at;
    const text = new Text(bench, shape, at);
    const heads = kvHeads * group;
    const width = heads * headDim;
    const queries = bench.normal(tokens * width, 2);
    const rows = bench.pageRows(PAGES, LAYERS * kvHeads);
    const [q, keys, values] = [queries, text.memory(text.keys, rows, NaN), text.memory(text.values, rows, 0)].map((numbers) => bench.up(bfloat16(numbers)));
    const wanted = Array.from({ length: tokens * heads }, (_, i) => [...text.mix(queries.subarray(i * headDim, (i + 1) * headDim), i % heads, Math.floor(i / heads))]).flat();
    const tables = tablesOf(text);
    const unitsOf = (rows: number) => (perQueryHead
      ? Array.from({ length: group }, (_, member) => [0, 0, member, 0])
      : Array.from({ length: Math.ceil(tokens * group / rows) }, (_, block) => [0, block, 0, 0]));
    const common = (units: number[][], out: bigint) => [
      q!.address, width, out, keys!.address, values!.address, rows.args[0] + BigInt(4 * LAYER * kvHeads), rows.args[1], bench.ints([-1, 0, 0, 0, ...units.flat()]).address, tables.chunks.address, tables.lists.address, tables.entries.address,
      window > 0 ? tables.entryPositions.address : 0n, tables.classOf.address, tables.selection.address, tables.maxPick] as const;
    const expectWanted = (out: { address: bigint; bytes: number }, what: string) => {
      expect(bench.error(bench.elements(out, tokens * width), wanted), `${what}, seed ${bench.seed}`).toBeLessThan(TOLERANCE);
    };

    const units = unitsOf(64);
    const attend = bench.kernel({ file: 'attend', name: 'attend', parameters: 'pippppipppppppippiiiiif', defines: { HEAD_DIM: headDim } });
    for (const splits of [1, 3, 33]) {
      const out = bench.poisoned(tokens * width * 2);
      const numUnits = units.length + 1;
      const partials = bench.poisoned(numUnits * kvHeads * splits * 64 * (headPad(headDim) + 4) * 4);
      const counters = bench.up(new Int32Array(numUnits * kvHeads));
      // Twice: counters are left as they were found.
      for (let time = 0; time < 2; time++) {
        attend.launch(
          { grid: [splits, kvHeads, numUnits], block: [128], shared: (headPad(headDim) > 128 ? 2 : 3) * 4 * 64 * headPad(headDim) },
          ...common(units, out.address), partials.address, counters.address, LAYER, LAYERS, kvHeads, group, window, 1 / Math.sqrt(headDim));
      }
      expectWanted(out, `mma, ${splits} parts`);
      expect(bench.integers(counters, numUnits * kvHeads).every((count) => count === 0)).toBe(true);
    }
    if (!bench.isHopper || perQueryHead || (headDim !== 64 && headDim !== 128)) return;
    const blocks = unitsOf(128);
    const out = bench.poisoned(tokens * width * 2);
    bench.kernel({ file: 'attend_hopper', name: 'attend_hopper', parameters: 'pippppipppppppiiiiiif', defines: { HEAD_DIM: headDim } }).launch(
      { grid: [blocks.length + 1, kvHeads], block: [384], shared: headDim === 128 ? 197_728 : 165_024 },
      ...common(blocks, out.address), LAYER, LAYERS, kvHeads, group, window, 1 / Math.sqrt(headDim));
    expectWanted(out, 'wgmma');
  }

  describe.each([[128, 2, 4], [64, 2, 3], [16, 1, 1], [6, 2, 8], [96, 1, 5], [256, 1, 2], [64, 1, 16]])('heads of %i, %i KV heads, %i queries each', (headDim, kvHeads, group) => {
    const shape = { headDim, kvHeads, group };
    const picks = (end: number, count: number, lists: number) =>
      Array.from({ length: lists }, () => bench.random.shuffled(Array.from({ length: end - 1 }, (_, i) => i + 1)).slice(0, count).toSorted((a, b) => a - b));

    test.each([0, 1, 63, 64, 65, 640])('one token at %i', (start) => { check(shape, dense(start, 1)); });
    test.each([[0, 5], [60, 16], [64, 3], [333, 9]])('at %i, %i tokens to verify', (start, tokens) => { check(shape, dense(start, tokens)); });
    test.each([[0, 70], [64, 64], [100, 100]])('at %i, a prompt of %i', (start, tokens) => { check(shape, dense(start, tokens)); });
    test.each([[700, 1], [640, 64], [705, 3]])('at %i, %i tokens: sinks and window', (start, tokens) => {
      check(shape, { start, tokens, fixed: [0, ...pagesBefore(start).slice(-2)] });
    });
    test.each([[700, 1], [640, 64]])('at %i, %i tokens: picked pages', (start, tokens) => {
      check(shape, { start, tokens, fixed: [0, ...pagesBefore(start).slice(-3)], picked: picks(7, 3, kvHeads) });
      check(shape, { start, tokens, fixed: [], picked: picks(9, 4, kvHeads) });
    });
    test('each query head reads pages of its own', () => {
      check(shape, { start: 700, tokens: 1, fixed: [0, ...pagesBefore(700).slice(-3)], picked: picks(7, 4, kvHeads * group), perQueryHead: true });
    });
    test.each([[50, 70], [333, 1], [640, 64]])('at %i, %i tokens: a sliding window', (start, tokens) => {
      check(shape, { start, tokens, fixed: pagesBefore(start).filter((page) => (page + 1) * PAGE_TOKENS > start - 99), window: 100 });
    });
  });
});
