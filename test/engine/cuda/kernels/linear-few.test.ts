// Linear layers of a few rows, in 16 bits and with fp8 weights, against float64.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DeviceBuffer } from '../../../../engine/cuda/device-memory.ts';
import { float16Table, float16ToFloat32, float32ToFloat16 } from '../../../../engine/model/float-convert.ts';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

const LARGEST_FP8 = 448;
const EPS = 1e-5;

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

  // Blocks that take one tile, two, and none; the last tile may be cut.
  test.each([[16, 64, 1], [100, 384, 3], [6, 4096, 8], [80, 4096, 1], [72, 14336, 2], [33, 1024, 9], [50, 1024, 16]])('streamed: %i outputs of %i inputs, %i rows', (outputs, inputs, rows) => {
    const w = bench.normal(outputs * inputs);
    const [x, residual, norm, before] = [bench.normal(rows * inputs, 0.1), bench.normal(rows * inputs, 3), bench.normal(inputs), bench.normal(rows * outputs, 5)];
    const normed = residual.map((value, i) => {
      const row = residual.subarray(i - i % inputs, i - i % inputs + inputs);
      return value / Math.sqrt(row.reduce((sum, other) => sum + other * other, 0) / inputs + EPS) * norm[i % inputs]!;
    });
    const { bytes, scales, numbers } = quantized(w, inputs);
    for (const fp8 of [false, true]) {
      const defines = { INPUT_TILES: rows > 8 ? 2 : 1, ...(fp8 ? { WEIGHT_FP8: 1 } : {}) };
      const matrix = fp8 ? [bytes.address, scales.address] as const : [bench.up(bfloat16(w)).address, 0n] as const;
      const shared = rows * (inputs + (fp8 ? 8 : 32)) * 2;
      const linear = bench.kernel({ file: 'linear_stream', name: 'linear_stream', parameters: 'ppppppiiiiff', defines });
      const gated = bench.kernel({ file: 'linear_stream', name: 'linear_stream_gated', parameters: 'pppppiiifff', defines });
      for (const isNormed of [false, true]) {
        const input = isNormed ? [bench.up(residual).address, bench.up(bfloat16(norm)).address] as const : [bench.up(bfloat16(x)).address, 0n] as const;
        const wanted = multiply(isNormed ? normed : x, fp8 ? numbers : w, rows, inputs).map((sum) => sum / 2);
        const label = `${fp8 ? 'fp8' : 'bf16'}${isNormed ? ', normed' : ''}, seed ${bench.seed}`;
        // What is normed is rounded to bf16 first.
        const exact = isNormed ? 4e-3 : 1e-5;
        const geometry = { grid: [Math.ceil(Math.ceil(outputs / 16) * 2 / 3)], block: [256], shared } as const;
        const [out, sums, added] = [bench.poisoned(rows * outputs * 2), bench.poisoned(rows * outputs * 4), bench.up(before)];
        const rest = [rows, inputs, outputs, 0.5, EPS] as const;
        linear.launch(geometry, ...input, ...matrix, out.address, 0n, 0, ...rest);
        linear.launch(geometry, ...input, ...matrix, 0n, sums.address, 0, ...rest);
        linear.launch(geometry, ...input, ...matrix, 0n, added.address, 1, ...rest);
        expect(bench.error(bench.elements(out, rows * outputs), wanted), label).toBeLessThan(6e-3);
        expect(bench.error(bench.floats(sums, rows * outputs), wanted), label).toBeLessThan(exact);
        expect(bench.error(bench.floats(added, rows * outputs), wanted.map((sum, i) => sum + before[i]!)), label).toBeLessThan(exact);
        if (outputs % 2 !== 0) continue;
        const inner = outputs / 2;
        const [both, scaled] = [bench.poisoned(rows * inner * 2), isNormed ? 0.02 : 0.5];
        gated.launch({ grid: [Math.ceil(Math.ceil(inner / 8) * 2 / 3)], block: [256], shared }, ...input, ...matrix, both.address, rows, inputs, inner, scaled, 2, EPS);
        const wantedGated = Float64Array.from({ length: rows * inner }, (_, i) => {
          const at = Math.floor(i / inner) * outputs + i % inner;
          const [gate, up] = [wanted[at]! * 2 * scaled, wanted[at + inner]! * 2 * scaled];
          return gate / (1 + Math.exp(-gate)) * up * 2;
        });
        expect(bench.error(bench.elements(both, rows * inner), wantedGated), label).toBeLessThan(isNormed ? 1.5e-2 : 4e-3);
      }
    }
  });

  // Tiles that are cut, in one part and in several; steps that are cut. In fp16, which the instruction that widens gives.
  test.each([[16, 64, 17, 1], [300, 384, 20, 2], [130, 4096, 64, 3], [520, 512, 64, 2], [6, 1024, 61, 5], [256, 2112, 30, 4]])('many, fp8: %i outputs of %i inputs, %i rows, %i parts', (outputs, inputs, rows, parts) => {
    if (!bench.isHopper) return;
    const [w, x] = [bench.normal(outputs * inputs), bench.normal(rows * inputs, 0.1).map((value) => halves(value))];
    const { bytes, scales, numbers } = quantized(w, inputs);
    const [most, input] = [rows <= 32 ? 32 : 64, bench.up(float32ToFloat16(x)).address];
    const defines = { ROWS: most, ELEMENT_FP16: 1 };
    const wanted = multiply(x, numbers, rows, inputs).map((sum) => sum / 2);
    const shared = 3 * 4 * most * 128 + 1024;
    const tiles = Math.ceil(outputs / 256);
    const [partials, counters] = [bench.poisoned((tiles + 1) * parts * most / 2 * 512 * 4), bench.ints(new Array<number>(tiles + 1).fill(0))];
    const [out, again] = [bench.poisoned(rows * outputs * 2), bench.poisoned(rows * outputs * 2)];
    const linear = bench.kernel({ file: 'linear_fp8', name: 'linear_fp8', parameters: 'ppppppiiif', defines });
    for (const to of [out, again]) linear.launch({ grid: [tiles, parts], block: [512], shared }, input, bytes.address, scales.address, to.address, partials.address, counters.address, rows, inputs, outputs, 0.5);
    const got = fp16(out, rows * outputs);
    expect(bench.error(got, wanted), `seed ${bench.seed}`).toBeLessThan(1e-3);
    expect(fp16(again, rows * outputs)).toEqual(got);
    if (outputs % 2 !== 0) return;
    const inner = outputs / 2;
    const gated = bench.poisoned(rows * inner * 2);
    bench.kernel({ file: 'linear_fp8', name: 'linear_fp8_gated', parameters: 'ppppppiiiff', defines })
      .launch({ grid: [Math.ceil(inner / 128), parts], block: [512], shared }, input, bytes.address, scales.address, gated.address, partials.address, counters.address, rows, inputs, inner, 0.5, 0.25);
    const wantedGated = Float64Array.from({ length: rows * inner }, (_, i) => {
      const at = Math.floor(i / inner) * outputs + i % inner;
      return wanted[at]! / (1 + Math.exp(-wanted[at]!)) * wanted[at + inner]! / 4;
    });
    expect(bench.error(fp16(gated, rows * inner), wantedGated), `seed ${bench.seed}`).toBeLessThan(1e-3);
  });

  const halfTable = float16Table();
  const halves = (value: number): number => float16ToFloat32(float32ToFloat16(Float32Array.of(value)), halfTable)[0]!;
  function fp16(buffer: DeviceBuffer, count: number): Float32Array {
    return float16ToFloat32(new Uint16Array(bench.memory.read(buffer, count * 2)), halfTable);
  }

  // The instruction that widens fp8 to fp16 against the arithmetic that does so for every chip.
  test.each([[80, 4096, 1], [100, 384, 8], [33, 1024, 16]])('fp8 in fp16, widened by an instruction: %i outputs of %i inputs, %i rows', (outputs, inputs, rows) => {
    if (!bench.isHopper) return;
    const [w, x] = [bench.normal(outputs * inputs), bench.normal(rows * inputs, 0.1).map((value) => halves(value))];
    const { bytes, scales, numbers } = quantized(w, inputs);
    const wanted = multiply(x, numbers, rows, inputs);
    const defines = { ELEMENT_FP16: 1, WEIGHT_FP8: 1, FP8_CONVERT: 1, INPUT_TILES: rows > 8 ? 2 : 1 };
    const [few, stream] = [bench.poisoned(rows * outputs * 4), bench.poisoned(rows * outputs * 4)];
    const input = bench.up(float32ToFloat16(x)).address;
    bench.kernel({ file: 'linear_few', name: 'linear_few', parameters: 'pppppiiif', defines })
      .launch({ grid: [Math.ceil(outputs / 16)], block: [256] }, input, bytes.address, scales.address, 0n, few.address, rows, inputs, outputs, 1);
    bench.kernel({ file: 'linear_stream', name: 'linear_stream', parameters: 'ppppppiiiiff', defines })
      .launch({ grid: [2], block: [256], shared: rows * (inputs + 8) * 2 }, input, 0n, bytes.address, scales.address, 0n, stream.address, 0, rows, inputs, outputs, 1, EPS);
    for (const got of [few, stream]) expect(bench.error(bench.floats(got, rows * outputs), wanted), `seed ${bench.seed}`).toBeLessThan(1e-5);
  });
});
