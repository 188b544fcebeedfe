// Page statistics and scores: bounds, recycling, ties, and numbers worked out by hand.
import { describe, expect, test } from 'vitest';
import { PageMemory } from '../../../engine/reference/page-memory.ts';
import { bestIndices, boundScore, pageScore } from '../../../engine/reference/page-score.ts';
import { dot } from '../../../engine/reference/matrix.ts';
import { SeededRandom } from '../../seeded-random.ts';

const shape = { layers: 2, kvHeads: 2, headDim: 4 };

function randomVector(random: SeededRandom): Float64Array {
  return Float64Array.from({ length: shape.headDim }, () => random.normal());
}

/** -> the keys written. [64] */
function fillPage(memory: PageMemory, page: number, random: SeededRandom): Float64Array[] {
  return Array.from({ length: 64 }, (_, slot) => {
    const key = randomVector(random);
    memory.write({ layer: 1, head: 1, page, slot }, key, randomVector(random));
    return key;
  });
}

describe('page memory', () => {
  test('keeps what was written, for each layer, head, page and slot apart', () => {
    const memory = new PageMemory(shape, 3);
    const places = [0, 1].flatMap((layer) => [0, 1].flatMap((head) => [0, 2].flatMap((page) => [0, 63].map((slot) => ({ layer, head, page, slot })))));
    places.forEach((at, i) => { memory.write(at, new Float64Array(4).fill(i), new Float64Array(4).fill(-i)); });
    places.forEach((at, i) => {
      expect([...memory.key(at)]).toEqual([i, i, i, i]);
      expect(memory.value(at)[3]).toBe(i === 0 ? -0 : -i);
    });
  });

  test('is poisoned until it is written', () => {
    const memory = new PageMemory(shape, 1);
    expect(() => memory.key({ layer: 0, head: 0, page: 0, slot: 5 })).toThrow('page 0 is read by head 0, which has no row there');
    memory.write({ layer: 0, head: 0, page: 0, slot: 0 }, new Float64Array(4), new Float64Array(4));
    expect(memory.key({ layer: 0, head: 0, page: 0, slot: 5 }).every(Number.isNaN)).toBe(true);
    expect(memory.statistics({ layer: 0, head: 0, page: 0, slot: 16 }).minimum.every(Number.isNaN)).toBe(true);
  });

  test('gives the rows of released heads to other pages, poisoned', () => {
    const memory = new PageMemory(shape, 1);
    const at = { layer: 1, head: 0, page: 0, slot: 0 };
    for (const layer of [0, 1]) for (const head of [0, 1]) memory.write({ layer, head, page: 0, slot: 0 }, new Float64Array(4).fill(2 * layer + head), new Float64Array(4));
    memory.release(0, Int32Array.of(0, 3));
    expect(() => memory.key({ ...at, layer: 0 })).toThrow('no row');
    expect([...memory.key(at)]).toEqual([2, 2, 2, 2]);
    memory.release(0, null);
    memory.write({ layer: 0, head: 0, page: 3, slot: 1 }, new Float64Array(4), new Float64Array(4));
    for (const layer of [0, 1]) expect(memory.key({ ...at, layer, page: 3 }).every(Number.isNaN)).toBe(true);
  });

  test('statistics are the extremes of each 16 keys, also when the page is used again', () => {
    const memory = new PageMemory(shape, 2);
    const random = new SeededRandom(1);
    memory.write({ layer: 1, head: 1, page: 1, slot: 16 }, new Float64Array(4).fill(1e9), new Float64Array(4));
    memory.poison([0]);
    for (const page of [0, 1]) {
      const keys = fillPage(memory, page, random);
      for (const slot of [0, 15, 16, 63]) {
        const { minimum, maximum } = memory.statistics({ layer: 1, head: 1, page, slot });
        const group = keys.slice(Math.floor(slot / 16) * 16, Math.floor(slot / 16) * 16 + 16);
        for (let channel = 0; channel < 4; channel++) {
          expect(minimum[channel]).toBe(Math.min(...group.map((key) => key[channel]!)));
          expect(maximum[channel]).toBe(Math.max(...group.map((key) => key[channel]!)));
        }
      }
    }
  });
});

describe('page scores', () => {
  test.each([
    [[1, 0, 2, 5], [-1, -3, 0, -5], 8],
    [[0, 1, 1, 1], [0, 1, 1, 1], -1.5],
    [[2, -1, -1, 9], [1, -2, -4, -9], 5.5],
  ])('maximum %j and minimum %j bound the query (1, -2, 0.5, 0) by %f', (maximum, minimum, expected) => {
    expect(boundScore(Float64Array.of(1, -2, 0.5, 0), Float64Array.from(minimum), Float64Array.from(maximum))).toBe(expected);
  });

  test('bound the product of every query with every key of the page', () => {
    const memory = new PageMemory(shape, 1);
    const random = new SeededRandom(2);
    const keys = fillPage(memory, 0, random);
    for (let trial = 0; trial < 200; trial++) {
      const queries = Array.from({ length: 3 }, () => randomVector(random));
      const score = pageScore(memory, { layer: 1, head: 1, page: 0 }, queries);
      const best = Math.max(...queries.flatMap((query) => keys.map((key) => dot(query, key))));
      expect(score).toBeGreaterThanOrEqual(best - 1e-12);
    }
  });

  test('are the bound itself when all keys of a page are one', () => {
    const memory = new PageMemory(shape, 1);
    const random = new SeededRandom(3);
    const key = randomVector(random);
    for (let slot = 0; slot < 64; slot++) memory.write({ layer: 0, head: 0, page: 0, slot }, key, key);
    const queries = [randomVector(random), randomVector(random)];
    expect(pageScore(memory, { layer: 0, head: 0, page: 0 }, queries)).toBeCloseTo(Math.max(...queries.map((query) => dot(query, key))), 12);
  });

  test('the best come in ascending order, of equals the first', () => {
    const scores = Float64Array.of(3, 7, 7, -1, 7, 9);
    expect(bestIndices(scores, 3)).toEqual([1, 2, 5]);
    expect(bestIndices(scores, 5)).toEqual([0, 1, 2, 4, 5]);
    expect(bestIndices(scores, 0)).toEqual([]);
    expect(bestIndices(Float64Array.of(0, -0, 0), 2)).toEqual([0, 1]);
  });
});
