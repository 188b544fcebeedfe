// The search for heads that stream together: against every set there is, with heads that stand in for each other.
import { expect, test } from 'vitest';
import { chooseOrder } from '../../calibrate/choose-order.ts';
import { SeededRandom } from '../seeded-random.ts';

type Harm = (heads: readonly number[]) => number;

/** Counts, and refuses to measure a set twice. */
function measuring(harmOf: Harm) {
  const seen = new Set<string>();
  return {
    seen,
    harmOf: (heads: readonly number[]): Promise<number> => {
      const key = [...heads].sort((a, b) => a - b).join();
      expect(seen).not.toContain(key);
      seen.add(key);
      return Promise.resolve(harmOf(heads));
    },
  };
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The least harm of all sets of `size` of `heads`. */
function leastHarm(heads: readonly number[], size: number, harmOf: Harm): number {
  const least = (from: number, chosen: readonly number[]): number => {
    if (chosen.length === size) return harmOf(chosen);
    return Math.min(...heads.slice(from).filter((_, i) => heads.length - from - i >= size - chosen.length).map((head) => least(heads.indexOf(head) + 1, [...chosen, head])));
  };
  return least(0, []);
}

/** Groups of heads that do one thing: nothing is lost before the last of a group streams. */
const standIns = (groups: readonly (readonly number[])[], costs: readonly number[]): Harm => (heads) =>
  groups.reduce((sum, group, i) => sum + (group.every((head) => heads.includes(head)) ? costs[i]! : 0), 0);

test('heads that stand in for each other never stream together before they must', async () => {
  const harmOf = standIns([[0, 1], [2, 3], [4, 5], [6, 7]], [5, 3, 2, 1]);
  const { order, harm } = await chooseOrder({ ranked: upTo(8), maxEvaluations: 64, tolerance: 0, harmOf: measuring(harmOf).harmOf });
  expect(harmOf(order.slice(0, 4))).toBe(0);
  expect([4, 5, 6, 7].map((i) => harm[i])).toEqual([1, 3, 6, 11]);
  expect([...order].sort()).toEqual(upTo(8));
});

test('the ranking is kept as far as it does no harm, at the price of a few measurements', async () => {
  const { harmOf, seen } = measuring((heads) => Math.max(0, heads.length - 11));
  const { order, harm } = await chooseOrder({ ranked: upTo(16).toReversed(), maxEvaluations: 64, tolerance: 0.5, harmOf });
  expect(order.slice(0, 11)).toEqual(upTo(16).toReversed().slice(0, 11));
  expect(harm[10]).toBe(0);
  expect([...seen].filter((set) => set.split(',').length <= 11).length).toBeLessThan(5);
});

test('what one by one cannot find is found by exchange', async () => {
  // Head 0 alone is the best, but not of any good pair.
  const harmOf: Harm = (heads) => (heads.length === 1 ? 1 + heads[0]! : heads.includes(0) ? 10 : 3);
  const { order, harm } = await chooseOrder({ ranked: [0, 1, 2, 3], maxEvaluations: 32, tolerance: 0, harmOf: measuring((heads) => (heads.length === 4 ? 20 : harmOf(heads))).harmOf });
  expect(order.slice(0, 2)).not.toContain(0);
  expect(harm[1]).toBe(3);
});

test.each(upTo(12))('half of ten heads are hard to better, random harms and pairs (seed %i)', async (seed) => {
  const random = new SeededRandom(seed);
  const own = upTo(10).map(() => random.next());
  const pairs = upTo(10).map((head) => upTo(head).map(() => random.next() ** 4));
  const harmOf: Harm = (heads) => heads.reduce((sum, head) => sum + own[head]! + heads.reduce((more, other) => more + (other < head ? pairs[head]![other]! : 0), 0), 0);
  const { order, harm } = await chooseOrder({ ranked: upTo(10), maxEvaluations: 200, tolerance: 0, harmOf: measuring(harmOf).harmOf });
  order.forEach((_, i) => { if (harm[i] !== null) expect(harm[i]).toBeCloseTo(harmOf(order.slice(0, i + 1)), 10); });
  const half = harmOf(order.slice(0, 5));
  expect(half).toBeLessThan(1.1 * leastHarm(upTo(10), 5, harmOf));
  const exchanges = order.slice(0, 5).flatMap((leaving) => order.slice(5).map((entering) => [...order.slice(0, 5).filter((head) => head !== leaving), entering]));
  expect(Math.min(...exchanges.map(harmOf))).toBeGreaterThan(half - 1e-3);
});

test('of heads that do equal harm the order is the ranking', async () => {
  const { order } = await chooseOrder({ ranked: [2, 0, 3, 1], maxEvaluations: 32, tolerance: 0, harmOf: (heads) => Promise.resolve(heads.length) });
  expect(order).toEqual([2, 0, 3, 1]);
});

test('more heads than may be measured go in groups of neighbours of the ranking, and no more sets are measured than allowed', async () => {
  const ranked = upTo(107).map((i) => (i * 37) % 107);
  const { harmOf, seen } = measuring((heads) => heads.filter((head) => head !== 0).length);
  const { order, harm, evaluations } = await chooseOrder({ ranked, maxEvaluations: 47, tolerance: 0, harmOf });
  expect([...order].sort((a, b) => a - b)).toEqual(upTo(107));
  expect(order[0]).toBe(0);
  // 7 sets find the harmless start, so 10 groups of the other 106 heads are left. Two sets of the search for the start begin the order too.
  expect(harm.filter((figure) => figure !== null)).toHaveLength(12);
  expect(evaluations).toBe(seen.size);
  expect(evaluations).toBeLessThanOrEqual(47);
});
