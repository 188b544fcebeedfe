// Attention of one token that turns and writes it too, against the two kernels that do so one after the other: the same
// outputs, pages and statistics, to the bit.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PAGE_TOKENS } from '../../../../kvcache/page-lists/page-list.ts';
import type { DeviceBuffer } from '../../../../engine/cuda/device-memory.ts';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';
import { headPad, pageElements } from './page-layout.ts';

const PAGES = 40;
const LAYERS = 2;
const LAYER = 1;
const EPS = 1e-5;
/** Positions of the tokens of one launch: the first of a text, borders of both kinds of page, pages begun and whole lists. */
const STARTS = [0, 63, 64, 79, 80, 200, 1000];

describe.skipIf(reasonWithoutDevice !== null)('attention that writes its token', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  test.each([
    { headDim: 128, kvHeads: 2, group: 4, hasNorms: false, window: 0 }, { headDim: 64, kvHeads: 3, group: 7, hasNorms: true, window: 0 },
    { headDim: 96, kvHeads: 1, group: 16, hasNorms: true, window: 100 }, { headDim: 256, kvHeads: 1, group: 1, hasNorms: false, window: 0 },
    { headDim: 128, kvHeads: 2, group: 4, hasNorms: false, window: 0, format: 'KV_INT8' }, { headDim: 64, kvHeads: 2, group: 2, hasNorms: true, window: 0, format: 'KV_FP8' },
  ])('%j', ({ headDim, kvHeads, group, hasNorms, window, format }) => {
    const [heads, defines] = [kvHeads * group, { HEAD_DIM: headDim, ...(format === undefined ? {} : { [format]: 1 }) }];
    const width = (heads + 2 * kvHeads) * headDim;
    const [rows, pageBytes] = [STARTS.length, format === undefined ? pageElements(headDim) * 2 : PAGE_TOKENS * (headPad(headDim) + 4)];
    const memory = bench.pageRows(PAGES, LAYERS * kvHeads);
    const free = bench.random.shuffled(Array.from({ length: PAGES }, (_, i) => i));
    const tables = STARTS.map((start) => free.splice(0, Math.floor(start / PAGE_TOKENS) + 1));
    const [keysBefore, valuesBefore] = [0, 1].map(() => (format === undefined ? bfloat16(bench.normal(memory.count * pageElements(headDim))) : bytesWithScales(memory.count, headDim)));
    const statisticsOf = bfloat16(bench.normal(memory.count * 4 * 2 * headDim));
    const [qkv, turns] = [bfloat16(bench.normal(rows * width)), bench.up(bench.normal(rows * headDim))];
    const [qNorm, kNorm] = hasNorms ? [bench.up(bfloat16(bench.normal(headDim))).address, bench.up(bfloat16(bench.normal(headDim))).address] : [0n, 0n];

    const entries: number[] = [], positions: number[] = [], chunks: number[] = [], lists: number[] = [], runs: number[] = [];
    STARTS.forEach((start, i) => {
      const own = entries.length;
      const listed = tables[i]!.slice(0, Math.ceil(start / PAGE_TOKENS));
      entries.push(tables[i]!.at(-1)!, ...listed);
      positions.push(-1, ...listed.map((_, page) => page * PAGE_TOKENS));
      chunks.push(i, 1, start, own, 0, 0, 1, i, 0, 0, 0, 0, 0, 0, 0, 0);
      lists.push(own + 1, listed.length, 0, 0, 0, start, 0, 0);
      runs.push(i, 1, tables[i]!.at(-1)! * PAGE_TOKENS + start % PAGE_TOKENS, start % PAGE_TOKENS + 1);
    });
    const units = bench.ints([-1, 0, 0, 0, ...STARTS.flatMap((_, i) => [i, 0, 0, 0])]);
    const numUnits = rows + 1;
    const at = {
      runs: bench.ints(runs), chunks: bench.ints(chunks), lists: bench.ints(lists), entries: bench.ints(entries), positions: window > 0 ? bench.ints(positions).address : 0n,
      classOf: bench.up(new Uint8Array(LAYERS * kvHeads)), selection: bench.ints([0]),
    };
    const shared = format === undefined ? (headPad(headDim) === 256 ? 2 : 3) * 4 * 64 * headPad(headDim)
      : Math.max(49_152, 2 * 2 * 64 * (headPad(headDim) + 4) + 4 * 64 * headPad(headDim));

    // Those of the layer.
    const pageRows = [memory.args[0] + BigInt(4 * LAYER * kvHeads), memory.args[1]] as const;
    for (const splits of [1, 3, 16]) {
      const results = [false, true].map((atOnce) => {
        const [x, keys, values, statistics] = [bench.up(qkv.slice()), bench.up(keysBefore!.slice()), bench.up(valuesBefore!.slice()), bench.up(statisticsOf.slice())];
        const out = bench.poisoned(rows * heads * headDim * 2);
        const partials = bench.poisoned(numUnits * kvHeads * splits * 64 * (headPad(headDim) + 4) * 4);
        const counters = bench.up(new Int32Array(numUnits * kvHeads));
        const geometry = { grid: [splits, kvHeads, numUnits], block: [128], shared } as const;
        const args = [x.address, width, out.address, keys.address, values.address, ...pageRows, units.address, at.chunks.address, at.lists.address, at.entries.address, at.positions,
          at.classOf.address, at.selection.address, 1, partials.address, counters.address, LAYER, LAYERS, kvHeads, group, window, 1 / Math.sqrt(headDim)] as const;
        if (atOnce) {
          bench.kernel({ file: 'attend_token', name: 'attend_token', parameters: 'pippppipppppppippiiiiifppfpp', defines }).launch(geometry, ...args, qNorm, kNorm, EPS, turns.address, statistics.address);
        } else {
          bench.kernel({ file: 'rope_write', name: 'rope_write', parameters: 'pipppfppppppiii', defines }).launch(
            { grid: [rows, kvHeads], block: [128] }, x.address, width, 0n, qNorm, kNorm, EPS, turns.address, at.runs.address, keys.address, values.address, statistics.address, ...pageRows, kvHeads, group);
          bench.kernel({ file: 'attend', name: 'attend', parameters: 'pippppipppppppippiiiiif', defines }).launch(geometry, ...args);
        }
        const bits = (buffer: DeviceBuffer, bytes: number) => Buffer.from(bench.memory.read(buffer, bytes)).toString('base64');
        const numbers = bench.elements(out, rows * heads * headDim);
        expect(numbers.some(Number.isNaN), `seed ${bench.seed}`).toBe(false);
        return { numbers: [...numbers], keys: bits(keys, memory.count * pageBytes), values: bits(values, memory.count * pageBytes), statistics: bits(statistics, statisticsOf.byteLength) };
      });
      for (const part of ['numbers', 'keys', 'values', 'statistics'] as const) {
        expect(JSON.stringify(results[1]![part]) === JSON.stringify(results[0]![part]), `${part}, ${splits} parts, seed ${bench.seed}`).toBe(true);
      }
    }
  });

  /** Pages of 8 bits: any bytes that are numbers, and scales. */
  function bytesWithScales(pages: number, headDim: number): Uint8Array {
    const size = PAGE_TOKENS * (headPad(headDim) + 4);
    const memory = Uint8Array.from({ length: pages * size }, () => Math.floor(bench.random.next() * 120) + (bench.random.next() < 0.5 ? 0 : 128));
    for (let page = 0; page < pages; page++) new Float32Array(memory.buffer, page * size + PAGE_TOKENS * headPad(headDim), PAGE_TOKENS).fill(0.01);
    return memory;
  }
});
