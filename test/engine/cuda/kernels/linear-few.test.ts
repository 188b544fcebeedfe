// Linear layers of a few rows, in 16 bits and with fp8 weights, against float64.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

const LARGEST_FP8 = 448;

/** E4M3 (arXiv 2209.05433): 4 bits of exponent with bias 7, 3 of mantissa, subnormals. */
function fromFp8(byte: number): number {
  const [exponent, mantissa] = [byte >> 3 & 15, byte & 7];
  const magnitude = exponent === 0 ? mantissa / 512 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return byte & 128 ? -magnitude : magnitude;
}

/** All finite numbers of the format that are not negative, ascending. */
const fp8Numbers = Array.from({ length: 127 }, (_, byte) => fromFp8(byte));

function multiply(x: Float32Array, w: ArrayLike<number>, rows: number, inputs: number): Float64Array {
  const outputs = w.length / inputs;
  return Float64Array.from({ length: rows * outputs }, (_, i) => {
    const [row, output] = [Math.floor(i / outputs), i % outputs];
    let sum = 0;
    for (let k = 0; k < inputs; k++) sum += x[row * inputs + k]! * w[output * inputs + k]!;
    return sum;
  });
}

describe.skipIf(reasonWithoutDevice !== null)('linear layers of a few rows', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  function quantized(w: Float32Array, inputs: number) {
    const outputs = w.length / inputs;
    const [bytes, scales] = [bench.poisoned(w.length), bench.poisoned(outputs * 4)];
    bench.kernel({ file: 'quantize', name: 'quantize_rows', parameters: 'pppif' }).launch({ grid: [outputs], block: [256] }, bench.up(bfloat16(w)).address, bytes.address, scales.address, inputs, 1);
    const values = new Uint8Array(bench.memory.read(bytes, w.length));
    const scaleOf = bench.floats(scales, outputs);
    return { bytes, scales, values, scaleOf, numbers: Float64Array.from(values, (byte, i) => fromFp8(byte) * scaleOf[Math.floor(i / inputs)]!) };
  }

  test.each([[3, 64], [5, 9], [4, 4096]])('fp8: the nearest number, %i rows of %i', (outputs, inputs) => {
    const w = bench.normal(outputs * inputs).fill(0, 0, inputs);
    const { bytes, scales, values, scaleOf, numbers } = quantized(w, inputs);
    for (let i = 0; i < w.length; i++) {
      const row = w.subarray(i - (i % inputs), i - (i % inputs) + inputs);
      const most = row.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      const scale = scaleOf[Math.floor(i / inputs)]!;
      expect(Math.abs(scale - (most === 0 ? 1 : most / LARGEST_FP8))).toBeLessThanOrEqual(1e-6 * scale);
      const wanted = Math.abs(w[i]!) / scale;
      const distance = fp8Numbers.reduce((least, number) => Math.min(least, Math.abs(number - wanted)), Infinity);
      expect(Math.abs(fromFp8(values[i]! & 127) - wanted), `seed ${bench.seed}, weight ${i}`).toBeLessThanOrEqual(distance + 1e-5 * wanted);
    }
    const back = bench.poisoned(w.length * 2);
    bench.kernel({ file: 'quantize', name: 'dequantize_rows', parameters: 'pppi' }).launch({ grid: [outputs], block: [256] }, bytes.address, scales.address, back.address, inputs);
    expect(bench.error(bench.elements(back, w.length), numbers)).toBeLessThan(4e-3);
  });

  test.each([[16, 64, 1], [100, 384, 3], [6, 4096, 8], [33, 1024, 9], [24, 14336, 16]])('%i outputs of %i inputs, %i rows', (outputs, inputs, rows) => {
    const w = bench.normal(outputs * inputs);
    const x = bench.normal(rows * inputs, 0.1);
    const { bytes, scales, numbers } = quantized(w, inputs);
    for (const fp8 of [false, true]) {
      const defines = { INPUT_TILES: rows > 8 ? 2 : 1, ...(fp8 ? { WEIGHT_FP8: 1 } : {}) };
      const weight = fp8 ? bytes.address : bench.up(bfloat16(w)).address;
      const scale = fp8 ? scales.address : 0n;
      const input = bench.up(bfloat16(x)).address;
      const wanted = multiply(x, fp8 ? numbers : w, rows, inputs).map((sum) => sum / 2);
      const label = `${fp8 ? 'fp8' : 'bf16'}, seed ${bench.seed}`;
      const [out, logits] = [bench.poisoned(rows * outputs * 2), bench.poisoned(rows * outputs * 4)];
      const few = bench.kernel({ file: 'linear_few', name: 'linear_few', parameters: 'pppppiiif', defines });
      const geometry = { grid: [Math.ceil(outputs / 16)], block: [256] } as const;
      few.launch(geometry, input, weight, scale, out.address, 0n, rows, inputs, outputs, 0.5);
      few.launch(geometry, input, weight, scale, 0n, logits.address, rows, inputs, outputs, 0.5);
      expect(bench.error(bench.elements(out, rows * outputs), wanted), label).toBeLessThan(4e-3);
      expect(bench.error(bench.floats(logits, rows * outputs), wanted), label).toBeLessThan(1e-5);
      if (outputs % 2 !== 0) continue;
      const inner = outputs / 2;
      const gated = bench.poisoned(rows * inner * 2);
      bench.kernel({ file: 'linear_few', name: 'linear_few_gated', parameters: 'ppppiiiff', defines })
        .launch({ grid: [Math.ceil(inner / 8)], block: [256] }, input, weight, scale, gated.address, rows, inputs, inner, 0.5, 2);
      const wantedGated = Float64Array.from({ length: rows * inner }, (_, i) => {
        const at = Math.floor(i / inner) * outputs + i % inner;
        return wanted[at]! / (1 + Math.exp(-wanted[at]!)) * wanted[at + inner]! * 2;
      });
      expect(bench.error(bench.elements(gated, rows * inner), wantedGated), label).toBeLessThan(4e-3);
    }
  });
});
