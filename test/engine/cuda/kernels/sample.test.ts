// The summary of a row of logits against float64, with equal logits, masked ones and rubbish.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

describe.skipIf(reasonWithoutDevice !== null)('summaries of logits', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  function summarize(rows: readonly Float32Array[], vocab: number): { best: Int32Array; sums: Float32Array } {
    const stride = vocab + 3;
    const logits = new Float32Array(rows.length * stride).fill(Infinity);
    rows.forEach((row, i) => { logits.set(row, i * stride); });
    const [best, sums] = [bench.poisoned(rows.length * 4), bench.poisoned(rows.length * 4)];
    bench.kernel({ file: 'sample', name: 'summarize_logits', parameters: 'piipp' })
      .launch({ grid: [rows.length], block: [1024] }, bench.up(logits).address, stride, vocab, best.address, sums.address);
    return { best: bench.integers(best, rows.length), sums: bench.floats(sums, rows.length) };
  }

  test.each([1, 96, 1025, 128_256])('%i logits', (vocab) => {
    const plain = Float32Array.from({ length: vocab }, () => bench.random.normal() * 5 - 100);
    const equal = Float32Array.from({ length: vocab }, () => bench.random.below(3));
    const masked = plain.map((value, i) => (i % 3 === 1 ? -Infinity : value * 20));
    const rows = [plain, equal, masked];
    const { best, sums } = summarize(rows, vocab);
    rows.forEach((row, i) => {
      const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
      expect(best[i], `seed ${bench.seed}`).toBe(row.indexOf(most));
      const wanted = most + Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0));
      expect(Math.abs(sums[i]! - wanted), `seed ${bench.seed}`).toBeLessThan(1e-5 * Math.max(1, Math.abs(wanted)));
    });
  });

  test('rows that an engine should never give', () => {
    const row = (set: (numbers: Float32Array) => void): Float32Array => {
      const numbers = new Float32Array(5000);
      set(numbers);
      return numbers;
    };
    const { best } = summarize([
      row((numbers) => { numbers[4000] = NaN; }), row((numbers) => { numbers[0] = NaN; }), row((numbers) => { numbers[77] = Infinity; }), row((numbers) => { numbers.fill(-Infinity); }),
    ], 5000);
    expect([...best]).toEqual([-1, -1, -1, -1]);
  });
});
