// The heads of rows of logits against their definition in float64: equal logits, masked ones, rubbish, rows in company.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HEAD_TOKENS } from '../../../../engine/logit-row.ts';
import { headOf } from '../../head-of.ts';
import { KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

const RECORD = 2 * HEAD_TOKENS + 4;
const PART = 8192;
/** Sums of smaller numbers are 0 in float32. */
const LEAST_FLOAT = 2 ** -126;

describe.skipIf(reasonWithoutDevice !== null)('heads of rows of logits', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  interface Head { tokens: number[]; logits: number[]; rest: number; restAtTemperature: number; isSound: boolean; targetLogit: number }

  function headsOf(rows: readonly Float32Array[], vocab: number, temperature: number, targets = rows.map(() => -1)): Head[] {
    const [stride, parts] = [vocab + 3, Math.ceil(vocab / PART)];
    const logits = new Float32Array(rows.length * stride).fill(Infinity);
    rows.forEach((row, i) => { logits.set(row, i * stride); });
    const given = bench.up(logits);
    const inverses = bench.up(new Float32Array(rows.length).fill(1 / temperature));
    const entries = rows.length * parts * HEAD_TOKENS;
    const [tokens, largest, sums] = [bench.poisoned(entries * 4), bench.poisoned(entries * 4), bench.poisoned(rows.length * parts * 16)];
    const heads = bench.poisoned(rows.length * RECORD * 4);
    bench.kernel({ file: 'sample', name: 'head_parts', parameters: 'piipppp' })
      .launch({ grid: [parts, rows.length], block: [256] }, given.address, stride, vocab, inverses.address, tokens.address, largest.address, sums.address);
    bench.kernel({ file: 'sample', name: 'join_heads', parameters: 'ppppipipp' })
      .launch({ grid: [rows.length], block: [1024] }, tokens.address, largest.address, sums.address, inverses.address, parts, given.address, stride, bench.ints(targets).address, heads.address);
    const [integers, floats] = [bench.integers(heads, rows.length * RECORD), bench.floats(heads, rows.length * RECORD)];
    return rows.map((_, row) => {
      const at = row * RECORD;
      const count = Math.min(HEAD_TOKENS, vocab);
      return {
        tokens: [...integers.subarray(at, at + count)], logits: [...floats.subarray(at + HEAD_TOKENS, at + HEAD_TOKENS + count)],
        rest: floats[at + 2 * HEAD_TOKENS]!, restAtTemperature: floats[at + 2 * HEAD_TOKENS + 1]!, isSound: integers[at + 2 * HEAD_TOKENS + 2] === 1,
        targetLogit: floats[at + 2 * HEAD_TOKENS + 3]!,
      };
    });
  }

  const kinds = {
    plain: () => bench.random.normal() * 5 - 100,
    flat: () => bench.random.normal() * 0.001,
    'in few sizes': () => bench.random.below(3) - 1,
    'all zero, of both signs': () => (bench.random.below(2) === 0 ? 0 : -0),
    masked: (i: number) => (i % 3 === 1 ? -Infinity : bench.random.normal() * 100),
    'all masked but one': (i: number) => (i === 70 ? 3 : -Infinity),
    rising: (i: number) => i / 1000,
  } satisfies Record<string, (i: number) => number>;

  describe.each([1, 0.3, 2])('at temperature %d', (temperature) => {
    test.each([100, 256, 257, 5000, 8192, 8193, 128_256, 262_144])('%i logits', (vocab) => {
      const rows = Object.values(kinds).map((make) => Float32Array.from({ length: vocab }, (_, i) => make(i)));
      headsOf(rows, vocab, temperature).forEach((head, i) => {
        const wanted = headOf(rows[i]!, temperature);
        const what = `${Object.keys(kinds)[i]}, seed ${bench.seed}`;
        expect(head.isSound, what).toBe(true);
        expect(head.tokens, what).toEqual([...wanted.tokens]);
        expect(head.logits.every((logit, at) => logit === wanted.logits[at]), what).toBe(true);
        expect(Math.abs(head.rest - wanted.rest), what).toBeLessThanOrEqual(1e-5 * wanted.rest + LEAST_FLOAT);
        expect(Math.abs(head.restAtTemperature - wanted.restAtTemperature), what).toBeLessThanOrEqual(1e-5 * wanted.restAtTemperature + LEAST_FLOAT);
      });
    });
  });

  test('the logit of a token that is named comes with the head, in it or not', () => {
    const vocab = 20_000;
    const rows = Array.from({ length: 6 }, () => Float32Array.from({ length: vocab }, kinds.plain));
    const targets = [0, vocab - 1, -1, rows[3]!.indexOf(Math.max(...rows[3]!)), rows[4]!.indexOf(Math.min(...rows[4]!)), bench.random.below(vocab)];
    expect(headsOf(rows, vocab, 1, targets).map(({ targetLogit }) => targetLogit)).toEqual(rows.map((row, i) => (targets[i]! < 0 ? 0 : row[targets[i]!]!)));
  });

  test('a row has the same head whatever is beside it, to the bit', () => {
    const rows = Array.from({ length: 9 }, () => Float32Array.from({ length: 128_256 }, kinds.plain));
    const together = headsOf(rows, 128_256, 0.8);
    for (const i of [0, 5, 8]) expect(headsOf([rows[i]!], 128_256, 0.8)[0]).toEqual(together[i]);
  });

  test('rows that an engine should never give are told', () => {
    const row = (set: (numbers: Float32Array) => void): Float32Array => {
      const numbers = new Float32Array(20_000);
      set(numbers);
      return numbers;
    };
    const negativeNaN = new Float32Array(Uint32Array.of(0xffffffff).buffer)[0]!;
    const rows = [
      row((numbers) => { numbers[14_000] = NaN; }), row((numbers) => { numbers[0] = NaN; }), row((numbers) => { numbers[77] = Infinity; }),
      row((numbers) => { numbers.fill(-Infinity); }), row((numbers) => { numbers.fill(negativeNaN); }), row((numbers) => { numbers[1] = 1; }),
    ];
    expect(headsOf(rows, 20_000, 1).map(({ isSound }) => isSound)).toEqual([false, false, false, false, false, true]);
  });
});
