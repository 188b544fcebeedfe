// Norms, the gate, embedding rows and turns against float64.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

const EPS = 1e-5;
/** bf16 results: half a unit in the last of 8 bits, at most. */
const ROUNDING = 4e-3;

describe.skipIf(reasonWithoutDevice !== null)('basic kernels', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  function normalized(x: Float32Array, weight: Float32Array, hidden: number): Float64Array {
    return Float64Array.from(x, (value, i) => {
      const row = x.subarray(i - (i % hidden), i - (i % hidden) + hidden);
      const mean = row.reduce((sum, other) => sum + other * other, 0) / hidden;
      return value / Math.sqrt(mean + EPS) * weight[i % hidden]!;
    });
  }

  test.each([[32, 1], [100, 7], [4096, 3], [9000, 2]])('rows of %i, %i of them', (hidden, rows) => {
    const x = bench.normal(rows * hidden, 3);
    const delta = bench.normal(rows * hidden);
    const weight = bench.normal(hidden);
    const [onDevice, deltaAt, weightAt] = [bench.up(x), bench.up(bfloat16(delta)), bench.up(bfloat16(weight))];
    const grid = { grid: [rows], block: [256] } as const;

    const normed = bench.poisoned(rows * hidden * 2);
    bench.kernel({ file: 'basic', name: 'rms_norm', parameters: 'pppif' }).launch(grid, onDevice.address, weightAt.address, normed.address, hidden, EPS);
    expect(bench.error(bench.elements(normed, rows * hidden), normalized(x, weight, hidden)), `seed ${bench.seed}`).toBeLessThan(ROUNDING);

    const sum = x.map((value, i) => value + 4 * delta[i]!);
    const addNorm = bench.kernel({ file: 'basic', name: 'add_norm', parameters: 'pppppiff' });
    const selected = bench.poisoned(2 * hidden * 2);
    addNorm.launch({ grid: [2], block: [256] }, onDevice.address, deltaAt.address, weightAt.address, selected.address, bench.ints([rows - 1, -1]).address, hidden, EPS, 4);
    const lastRow = [...normalized(sum, weight, hidden).subarray((rows - 1) * hidden), ...new Float64Array(hidden)];
    expect(bench.error(bench.elements(selected, 2 * hidden), lastRow), `seed ${bench.seed}`).toBeLessThan(ROUNDING);
    expect(bench.floats(onDevice, rows * hidden)).toEqual(x);

    bench.memory.poison(normed);
    addNorm.launch(grid, onDevice.address, deltaAt.address, weightAt.address, normed.address, 0n, hidden, EPS, 4);
    expect(bench.floats(onDevice, rows * hidden)).toEqual(sum);
    expect(bench.error(bench.elements(normed, rows * hidden), normalized(sum, weight, hidden)), `seed ${bench.seed}`).toBeLessThan(ROUNDING);
  });

  test.each([[48, 5], [100, 1], [14336, 2]])('silu_mul, %i wide', (inner, rows) => {
    const both = bench.normal(rows * 2 * inner, 4);
    const out = bench.poisoned(rows * inner * 2);
    bench.kernel({ file: 'basic', name: 'silu_mul', parameters: 'ppif' }).launch({ grid: [rows, Math.ceil(inner / 2048)], block: [256] }, bench.up(bfloat16(both)).address, out.address, inner, 0.25);
    const wanted = Float64Array.from({ length: rows * inner }, (_, i) => {
      const at = Math.floor(i / inner) * 2 * inner + i % inner;
      return both[at]! / (1 + Math.exp(-both[at]!)) * both[at + inner]! / 4;
    });
    expect(bench.error(bench.elements(out, rows * inner), wanted), `seed ${bench.seed}`).toBeLessThan(ROUNDING);
  });

  test('embed: rows of the table, zeros for no token', () => {
    const [hidden, vocab] = [40, 9];
    const table = bench.normal(vocab * hidden);
    const ids = [8, -1, 0];
    const out = bench.poisoned(ids.length * hidden * 4);
    bench.kernel({ file: 'basic', name: 'embed', parameters: 'pppif' }).launch({ grid: [ids.length], block: [256] }, bench.up(bfloat16(table)).address, bench.ints(ids).address, out.address, hidden, 2);
    expect(bench.floats(out, ids.length * hidden)).toEqual(Float32Array.from(ids.flatMap((id) => (id < 0 ? Array<number>(hidden).fill(0) : [...table.subarray(id * hidden, (id + 1) * hidden)].map((x) => 2 * x)))));
  });

  test('rope_table: exact in the millions', () => {
    const positions = [0, 1, 131_071, 5_000_000];
    const pairs = 32;
    const frequencies = Float64Array.from({ length: 2 * pairs }, (_, i) => 500_000 ** (-(i % pairs) / pairs) / (i < pairs ? 1 : 3));
    const out = bench.poisoned(positions.length * pairs * 8);
    bench.kernel({ file: 'rope_table', name: 'rope_table', parameters: 'ppppif' }).launch(
      { grid: [positions.length], block: [128] }, bench.up(frequencies).address, bench.ints([0, 1, 0, 1]).address, bench.ints(positions).address, out.address, pairs, 1.25);
    bench.floats(out, positions.length * pairs * 2).forEach((value, i) => {
      const row = Math.floor(i / (2 * pairs));
      const angle = positions[row]! * frequencies[row % 2 * pairs + Math.floor(i / 2) % pairs]!;
      expect(Math.abs(value - 1.25 * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle)))).toBeLessThan(1e-6);
    });
  });
});
