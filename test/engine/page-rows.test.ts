// Rows of memory by page and head: never one for two, and none lost.
import { expect, test } from 'vitest';
import { PageRows } from '../../engine/page-rows.ts';
import { SeededRandom } from '../seeded-random.ts';

const HEADS = 4;
const ALL = Array.from({ length: HEADS }, (_, head) => head);

test('a page has a row for each head when it is placed, and as many again for others when they are released', () => {
  const rows = new PageRows({ pages: 2, ids: 8, heads: HEADS });
  rows.place(5);
  rows.place(0);
  expect(() => { rows.place(3); }).toThrow(new RangeError('no row of KV memory is free for page 3'));
  rows.release(5, Int32Array.of(1, 3));
  rows.release(0, Int32Array.of(0, 1));
  rows.place(4);
  expect(new Set([5, 0, 4].flatMap((page) => ALL.filter((head) => rows.has(page, head)).map((head) => rows.of(page, head)))).size).toBe(2 * HEADS);
  expect(() => rows.of(5, 3)).toThrow(new RangeError('page 5 is read by head 3, which has no row there'));
});

test('rows are listed for many pages at once, or refused', () => {
  const rows = new PageRows({ pages: 3, ids: 3, heads: HEADS });
  for (const page of [2, 0, 1]) rows.place(page);
  const target = new Int32Array(4).fill(-7);
  rows.fill(target, 1, { pages: Int32Array.of(1, 2), head: 3 });
  expect([...target]).toEqual([-7, rows.of(1, 3), rows.of(2, 3), -7]);
  rows.release(2, Int32Array.of(3));
  expect(() => { rows.fill(target, 0, { pages: Int32Array.of(1, 2), head: 3 }); }).toThrow('page 2 is read by head 3');
});

test('no row is ever given to two heads, through a random history', () => {
  const random = new SeededRandom(3);
  const rows = new PageRows({ pages: 6, ids: 24, heads: HEADS });
  for (let step = 0; step < 2000; step++) {
    const page = random.below(24);
    const used = (): number[] => Array.from({ length: 24 }, (_, id) => ALL.filter((head) => rows.has(id, head)).map((head) => rows.of(id, head))).flat();
    if (used().length <= 5 * HEADS && random.below(2) === 0) rows.place(page);
    else rows.release(page, random.below(2) === 0 ? null : Int32Array.of(random.below(HEADS)));
    expect(new Set(used()).size).toBe(used().length);
  }
});
