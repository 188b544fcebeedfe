// Rotary frequencies of every type. The expected numbers were computed by Hugging Face's rope_utils
// (transformers 5.17) in float64; those of the default type are powers that can be read off.
import { describe, expect, test } from 'vitest';
import { Rope, rotate, type RopeTable } from '../../../engine/model/rope.ts';
import type { RopeSpec } from '../../../engine/model/spec.ts';
import { SeededRandom } from '../../seeded-random.ts';

const yarn = { type: 'yarn', betaFast: 32, betaSlow: 1, attentionFactor: 1, truncate: true } as const;

const cases: readonly { name: string; spec: RopeSpec; headDim: number; tokens?: number; expected: readonly number[] }[] = [
  { name: 'default', spec: { type: 'default', theta: 10_000 }, headDim: 8, expected: [1, 0.1, 0.01, 0.001] },
  { name: 'linear', spec: { type: 'linear', theta: 10_000, factor: 4 }, headDim: 8, expected: [0.25, 0.025, 0.0025, 0.00025] },
  {
    name: 'dynamic within its context', headDim: 8, tokens: 256,
    spec: { type: 'dynamic', theta: 10_000, factor: 2, originalContext: 256 }, expected: [1, 0.1, 0.01, 0.001],
  },
  {
    name: 'dynamic at 400 of 256', headDim: 8, tokens: 400, spec: { type: 'dynamic', theta: 10_000, factor: 2, originalContext: 256 },
    expected: [1, 0.0777822237465641, 0.00605007433096055, 0.000470588235294118],
  },
  {
    name: 'dynamic at 1000 of 256', headDim: 8, tokens: 1000, spec: { type: 'dynamic', theta: 10_000, factor: 2, originalContext: 256 },
    expected: [1, 0.0527510564331825, 0.0027826739548168, 0.000146788990825688],
  },
  {
    name: 'llama3', headDim: 16,
    spec: { type: 'llama3', theta: 500_000, factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 },
    expected: [1, 0.193922744748686, 0.0376060309308639, 0.00729266473721711, 0.000524846160992955, 3.42810219595259e-5, 6.64786987118124e-6, 1.28917317215156e-6],
  },
  {
    name: 'yarn', headDim: 16, spec: { ...yarn, theta: 1_000_000, factor: 4, originalContext: 32_768 },
    expected: [1, 0.177827941003892, 0.0316227766016838, 0.00421755993892762, 0.0005, 4.44569852509731e-5, 7.90569415042095e-6, 1.40585331297587e-6],
  },
  {
    name: 'yarn with its own ramp, not truncated', headDim: 16,
    spec: { ...yarn, theta: 10_000, factor: 40, originalContext: 4096, betaFast: 16, betaSlow: 2, truncate: false },
    expected: [1, 0.316227766016838, 0.1, 0.0316227766016838, 0.00579010496244711, 0.000123952369266104, 2.5e-5, 7.90569415042095e-6],
  },
  {
    name: 'yarn with a ramp of no width', headDim: 8, spec: { ...yarn, theta: 10_000, factor: 2, originalContext: 4 },
    expected: [1, 0.05, 0.005, 0.0005],
  },
];

test.each(cases)('frequencies: $name', ({ spec, headDim, tokens = 100, expected }) => {
  const frequencies = new Rope(spec, headDim).frequencies(tokens);
  expect(frequencies.length).toBe(headDim / 2);
  expected.forEach((value, i) => { expect(frequencies[i]! / value).toBeCloseTo(1, 12); });
});

function table(pairs: number, tokens = 1): RopeTable {
  return { cos: new Float64Array(pairs * tokens), sin: new Float64Array(pairs * tokens) };
}

describe('tables', () => {
  test('rows are cosine and sine of position times frequency', () => {
    const target = { cos: new Float32Array(8), sin: new Float32Array(8) };
    new Rope({ type: 'default', theta: 10_000 }, 8).fill(target, { start: 7, tokens: 2, promptTokens: 9 });
    [7, 0.7, 0.07, 0.007, 8, 0.8, 0.08, 0.008].forEach((angle, i) => {
      expect(target.cos[i]).toBeCloseTo(Math.cos(angle), 6);
      expect(target.sin[i]).toBeCloseTo(Math.sin(angle), 6);
    });
  });

  test('positions in the millions are exact where float32 angles would be off by a radian', () => {
    const target = table(2);
    const [position, frequency] = [123_456_789, 0.5];
    // theta^(-1/2) = 1/2, so the angle is half the position: exact in float64.
    new Rope({ type: 'default', theta: 4 }, 4).fill(target, { start: position, tokens: 1, promptTokens: 1 });
    expect(target.cos[1]).toBeCloseTo(Math.cos(position * frequency), 12);
  });

  test('yarn scales by its attention factor, and a shift does not', () => {
    const rope = new Rope({ ...yarn, theta: 10_000, factor: 4, originalContext: 64, attentionFactor: 1.25 }, 8);
    const [filled, shifted] = [table(4), table(4)];
    rope.fill(filled, { start: 5, tokens: 1, promptTokens: 6 });
    rope.fillShift(shifted, 5, 6);
    for (let pair = 0; pair < 4; pair++) {
      expect(Math.hypot(filled.cos[pair]!, filled.sin[pair]!)).toBeCloseTo(1.25, 12);
      expect(filled.cos[pair]! / 1.25).toBeCloseTo(shifted.cos[pair]!, 12);
      expect(filled.sin[pair]! / 1.25).toBeCloseTo(shifted.sin[pair]!, 12);
    }
  });

  test('a dynamic prompt has one base, a generated token the base of its own length', () => {
    const rope = new Rope({ type: 'dynamic', theta: 10_000, factor: 2, originalContext: 256 }, 8);
    const target = table(4, 3);
    rope.fill(target, { start: 399, tokens: 3, promptTokens: 400 });
    [400, 401, 402].forEach((length, token) => {
      const angle = (399 + token) * rope.frequencies(length)[3]!;
      expect(target.cos[token * 4 + 3]).toBeCloseTo(Math.cos(angle), 12);
    });
    expect(rope.frequencies(402)[3]).not.toBe(rope.frequencies(400)[3]);
  });
});

describe('rotation', () => {
  test('turns channel i with channel i + half', () => {
    const vector = Float64Array.of(9, 1, 2, 3, 4, 9);
    rotate(vector, 1, { cos: Float64Array.of(0, 1), sin: Float64Array.of(1, 0) }, 0, 2);
    expect([...vector]).toEqual([9, -3, 2, 1, 4, 9]);
  });

  test('a key at one position, shifted, is the key at the other position', () => {
    const rope = new Rope({ ...yarn, theta: 10_000, factor: 4, originalContext: 64, attentionFactor: 1.1 }, 8);
    const random = new SeededRandom(3);
    const key = Float64Array.from({ length: 8 }, () => random.normal());
    const [stored, wanted, turn] = [table(4), table(4), table(4)];
    rope.fill(stored, { start: 40, tokens: 1, promptTokens: 0 });
    rope.fill(wanted, { start: 1300, tokens: 1, promptTokens: 0 });
    rope.fillShift(turn, 1260, 0);
    const [moved, direct] = [key.slice(), key.slice()];
    rotate(moved, 0, stored, 0, 4);
    rotate(moved, 0, turn, 0, 4);
    rotate(direct, 0, wanted, 0, 4);
    moved.forEach((value, i) => { expect(value).toBeCloseTo(direct[i]!, 12); });
  });
});
