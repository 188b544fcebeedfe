import { afterEach, describe, expect, test } from 'vitest';
import { KvCache, type Reading, type SequencePages } from '../../kvcache/kv-cache.ts';
import type { PageOwner } from '../../kvcache/page-owner.ts';

/** `pages` pages of text; pages with the same letter have the same tokens. */
function text(letters: string): Int32Array {
  return Int32Array.from(Array.from(letters).flatMap((letter) => new Array<number>(64).fill(letter.charCodeAt(0))));
}

/** One past the text, so that a match may cover it whole. */
function asked(letters: string): Int32Array {
  return Int32Array.from([...text(letters), 7]);
}

/** All heads read alike. */
function whole(spanTokens: number): Reading {
  return { spanTokens, passingHeads: new Int32Array(0), passedPages: () => ({ from: 0, to: 0 }) };
}

const caches: KvCache[] = [];
afterEach(() => {
  for (const cache of caches.splice(0)) cache.checkIntegrity();
});

function newCache(numPages: number, owner?: PageOwner): KvCache {
  const cache = new KvCache(numPages, owner);
  caches.push(cache);
  return cache;
}

/** A sequence that has computed the text and shared it. */
function compute(cache: KvCache, letters: string, namespace = 'n'): SequencePages {
  const pages = cache.open(cache.match(namespace, asked(letters), whole(64)));
  expect(cache.reserve(pages, letters.length * 64)).toBe(true);
  cache.commit(pages, text(letters), letters.length * 64);
  cache.checkIntegrity();
  return pages;
}

function matched(cache: KvCache, letters: string, namespace = 'n'): number {
  return cache.match(namespace, asked(letters), whole(64)).pages.length;
}

describe('a KV cache', () => {
  test('finds the longest known run of whole pages', () => {
    const cache = newCache(16);
    compute(cache, 'abcd');
    expect(matched(cache, 'abcd')).toBe(4);
    expect(matched(cache, 'abxd')).toBe(2);
    expect(matched(cache, 'xbcd')).toBe(0);
    expect(matched(cache, 'abcde')).toBe(4);
  });

  test('always leaves the last token to compute', () => {
    const cache = newCache(16);
    compute(cache, 'ab');
    expect(cache.match('n', text('ab'), whole(64)).pages).toHaveLength(1);
    expect(cache.match('n', text('ab').subarray(0, 1), whole(64)).pages).toHaveLength(0);
  });

  test('shares pages that are computed as one only where all of their tokens agree', () => {
    const cache = newCache(16);
    const share = (letters: string): SequencePages => {
      const pages = cache.open(cache.match('n', asked(letters), whole(128)));
      cache.reserve(pages, letters.length * 64);
      cache.commit(pages, text(letters), Math.floor(letters.length / 2) * 128);
      cache.checkIntegrity();
      return pages;
    };
    const find = (letters: string): number => cache.match('n', asked(letters), whole(128)).pages.length;
    const one = share('abcd');
    expect([find('abcd'), find('abcx'), find('abc'), find('ax')]).toEqual([4, 2, 2, 0]);
    const other = share('abcx');
    expect(other.table.entries[2]).not.toBe(one.table.entries[2]);
    for (const [letters, pages] of [['abcd', one], ['abcx', other]] as const) {
      expect(cache.match('n', asked(letters), whole(128)).pages).toEqual([...pages.table.entries]);
    }
  });

  test('ends a match at a whole span when the end of the next is evicted', () => {
    const cache = newCache(4);
    const pages = cache.open(cache.match('n', asked('abcd'), whole(128)));
    cache.reserve(pages, 256);
    cache.commit(pages, text('abcd'), 256);
    cache.release(pages);
    const other = compute(cache, 'x');
    expect(cache.numCached).toBe(3);
    expect(cache.match('n', asked('abcd'), whole(128)).pages).toHaveLength(2);
    cache.release(other);
  });

  test('shares nothing between namespaces', () => {
    const cache = newCache(16);
    compute(cache, 'ab', 'one');
    expect(matched(cache, 'ab', 'two')).toBe(0);
  });

  test('shares the pages of a match and counts them once', () => {
    const cache = newCache(16);
    const first = compute(cache, 'abc');
    const second = compute(cache, 'abd');
    expect([...second.table.entries].slice(0, 2)).toEqual([...first.table.entries].slice(0, 2));
    expect(cache.numHeld).toBe(4);
  });

  test('shares full pages only, and frees a partial one with its sequence', () => {
    const cache = newCache(16);
    const pages = cache.open(cache.match('n', text('ab'), whole(64)));
    cache.reserve(pages, 100);
    cache.commit(pages, text('ab'), 64);
    cache.release(pages);
    expect([cache.numHeld, cache.numCached, cache.numFree]).toEqual([0, 1, 15]);
  });

  test('gives up its copy of a page that is shared already', () => {
    const cache = newCache(8);
    const one = cache.open(cache.match('n', asked('ab'), whole(64)));
    const two = cache.open(cache.match('n', asked('ab'), whole(64)));
    for (const pages of [one, two]) {
      cache.reserve(pages, 192);
      cache.commit(pages, text('ab'), 128);
    }
    expect(cache.numHeld).toBe(4);
    expect(two.table.entries.subarray(0, 2)).toEqual(one.table.entries.subarray(0, 2));
    cache.commit(two, text('abc'), 192);
    cache.release(one);
    cache.checkIntegrity();
    cache.release(two);
    expect([cache.numHeld, cache.numCached, cache.numFree]).toEqual([0, 3, 5]);
    expect(matched(cache, 'abc')).toBe(3);
  });

  test('computes a known text again within the memory that it needs', () => {
    const cache = newCache(5);
    cache.release(compute(cache, 'abcd'));
    const again = cache.open(cache.match('n', asked('a').subarray(0, 1), whole(64)));
    for (let tokens = 64; tokens <= 320; tokens += 64) {
      expect(cache.reserve(again, tokens)).toBe(true);
      cache.commit(again, text('abcde'), tokens);
      cache.checkIntegrity();
    }
    expect([cache.numHeld, cache.numCached]).toEqual([5, 0]);
  });

  test('evicts the least recently used prefix first, from its end', () => {
    const cache = newCache(6);
    cache.release(compute(cache, 'ab'));
    cache.release(compute(cache, 'cd'));
    cache.release(compute(cache, 'ab'));
    const pages = compute(cache, 'xyz');
    expect(matched(cache, 'ab')).toBe(2);
    expect(matched(cache, 'cd')).toBe(1);
    cache.release(pages);
  });

  test('never evicts what a sequence holds', () => {
    const cache = newCache(4);
    const held = compute(cache, 'abc');
    const other = cache.open(cache.match('n', asked('xy'), whole(64)));
    expect(cache.reserve(other, 128)).toBe(false);
    expect(other.table.length).toBe(0);
    expect(cache.reserve(other, 64)).toBe(true);
    expect(matched(cache, 'abc')).toBe(3);
    cache.release(held);
    expect(cache.reserve(other, 128)).toBe(true);
    expect(matched(cache, 'abc')).toBe(2);
  });

  test('gives back the middle of a sequence, and shares nothing of it after that', () => {
    const cache = newCache(8);
    const pages = cache.open(cache.match('n', text('abcdef'), whole(64)));
    cache.reserve(pages, 384);
    cache.commit(pages, text('abcdef'), 128);
    cache.releaseRange(pages, { from: 1, to: 3 });
    cache.releaseRange(pages, { from: 1, to: 4 });
    cache.commit(pages, text('abcdef'), 384);
    expect([...pages.table.entries].slice(1, 4)).toEqual([-1, -1, -1]);
    expect(pages.table.numHeld).toBe(3);
    expect(cache.numHeld).toBe(3);
    expect(matched(cache, 'abcdef')).toBe(2);
    cache.release(pages);
    expect([cache.numHeld, cache.numCached]).toEqual([0, 2]);
  });

  test('counts what is left after a match, not what the match itself wakes', () => {
    const cache = newCache(8);
    cache.release(compute(cache, 'abc'));
    expect(cache.rowsAvailableAfter(cache.match('n', asked('abc'), whole(64)))).toBe(5);
    expect(cache.rowsAvailableAfter(cache.match('n', asked('x'), whole(64)))).toBe(8);
  });

  test('refuses to release a sequence twice', () => {
    const cache = newCache(4);
    const pages = compute(cache, 'a');
    cache.release(pages);
    expect(() => { cache.release(pages); }).toThrow('released twice');
  });

  test('keeps integrity and finds what a plain list of texts finds, through a random history', () => {
    const cache = newCache(40);
    const open: { pages: SequencePages; letters: string }[] = [];
    let state = 1;
    const random = (n: number): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % 65521 % n;
    for (let step = 0; step < 3000; step++) {
      const letters = Array.from({ length: 1 + random(6) }, () => 'ab'[random(2)]).join('');
      const pages = cache.open(cache.match('n', asked(letters), whole(64)));
      if (cache.reserve(pages, letters.length * 64)) cache.commit(pages, text(letters), letters.length * 64);
      open.push({ pages, letters });
      if (open.length > 5) cache.release(open.splice(random(open.length), 1)[0]!.pages);
      cache.checkIntegrity();
      for (const other of open) {
        if (other.pages.table.length === other.letters.length) expect(matched(cache, other.letters)).toBe(other.letters.length);
      }
    }
    for (const { pages } of open) cache.release(pages);
    expect(cache.numHeld).toBe(0);
  });
});

/** Rows of memory as an engine would keep them: whose they are, and whether one is given back twice. */
class Rows implements PageOwner {
  readonly headsPerPage = 4;
  readonly numIds: number;
  /** Heads that have lost their rows, by page in use. */
  readonly lost = new Map<number, number[]>();

  constructor(numPages: number) {
    this.numIds = 4 * numPages;
  }

  release(page: number, heads: Int32Array | null): void {
    if (heads === null) {
      this.lost.delete(page);
      return;
    }
    expect(this.lost.has(page), `page ${page} loses heads a second time`).toBe(false);
    this.lost.set(page, [...heads]);
  }
}

/** Heads 1 and 3 read a page of sink and the last two. */
const halfPassing: Reading = {
  spanTokens: 64, passingHeads: Int32Array.of(1, 3),
  passedPages: (start) => ({ from: 1, to: Math.max(1, Math.floor(start / 64) - 2) }),
};

/** Reads and shares a text page by page, as prefill does. */
function readHalf(cache: KvCache, letters: string): SequencePages {
  const match = cache.match('half', asked(letters), halfPassing);
  const pages = cache.open(match);
  for (let length = match.pages.length + 1; length <= letters.length; length++) {
    expect(cache.reserve(pages, length * 64)).toBe(true);
    cache.commit(pages, text(letters), length * 64);
    cache.pass(pages, halfPassing.passedPages(length * 64));
    cache.checkIntegrity();
  }
  return pages;
}

describe('pages that some heads have passed', () => {
  const matchedHalf = (cache: KvCache, letters: string): number => cache.match('half', asked(letters), halfPassing).pages.length;

  test('give back the rows of those heads, and the others hold theirs', () => {
    const rows = new Rows(8);
    const cache = newCache(8, rows);
    const pages = cache.open(cache.match('half', new Int32Array(1), halfPassing));
    expect(cache.reserve(pages, 6 * 64)).toBe(true);
    expect(cache.freeRows).toBe(8);
    cache.pass(pages, halfPassing.passedPages(6 * 64));
    expect([cache.freeRows, cache.rowsHeld(pages), cache.numHeld]).toEqual([14, 18, 4.5]);
    expect([...pages.table.entries].map((page) => rows.lost.get(page) ?? [])).toEqual([[], [1, 3], [1, 3], [1, 3], [], []]);
    cache.release(pages);
    expect([cache.freeRows, rows.lost.size]).toEqual([32, 0]);
  });

  test('keep nothing for others where there are none', () => {
    const cache = newCache(8, new Rows(8));
    const pages = cache.open(cache.match('half', new Int32Array(1), halfPassing), { keepsPassed: false });
    expect(cache.reserve(pages, 6 * 64)).toBe(true);
    cache.commit(pages, text('abcdef'), 6 * 64);
    cache.pass(pages, halfPassing.passedPages(6 * 64));
    expect([cache.freeRows, cache.cachedRows]).toEqual([14, 0]);
    cache.release(pages);
  });

  test('let more text fit than whole pages would', () => {
    const cache = newCache(8, new Rows(8));
    const pages = readHalf(cache, 'abcdefghijkl');
    expect([pages.table.length, cache.rowsHeld(pages)]).toEqual([12, 12 * 2 + 3 * 2]);
    expect(cache.reserve(pages, 13 * 64)).toBe(false);
    cache.release(pages);
  });

  test('are found whole again as long as nobody needed the rows', () => {
    const cache = newCache(16, new Rows(16));
    const first = readHalf(cache, 'abcdefgh');
    expect(cache.rowsHeld(first)).toBe(8 * 2 + 3 * 2);
    expect(cache.cachedRows).toBe(5 * 2);
    expect(['abcdefgh', 'abcdexxx', 'abx'].map((letters) => matchedHalf(cache, letters))).toEqual([8, 5, 2]);
    cache.release(first);
    expect(['abcdefgh', 'abcdexxx', 'abx'].map((letters) => matchedHalf(cache, letters))).toEqual([8, 5, 2]);
  });

  test('lose the oldest rows first when memory is needed, under a text that is read too', () => {
    const rows = new Rows(8);
    const cache = newCache(8, rows);
    const first = readHalf(cache, 'abcdefgh');
    const second = cache.open(cache.match('other', new Int32Array(1), whole(64)));
    expect(cache.freeRows).toBe(0);
    expect(cache.reserve(second, 64)).toBe(true);
    expect([...first.table.entries].map((page) => rows.lost.has(page))).toEqual([false, true, true, false, false, false, false, false]);
    // A prefix of 5 pages reads pages 0, 3 and 4; one of 4 pages page 2 too.
    expect(['abcdefgh', 'abcdexxx', 'abcdxxxx', 'axxx'].map((letters) => matchedHalf(cache, letters))).toEqual([8, 5, 1, 1]);
    cache.checkIntegrity();
    cache.release(first);
    cache.release(second);
  });

  test('are computed again where a prefix ends among rows that are gone, and the tree takes the new ones', () => {
    const rows = new Rows(8);
    const cache = newCache(8, rows);
    cache.release(readHalf(cache, 'abcdef'));
    const other = cache.open(cache.match('other', new Int32Array(1), whole(64)));
    expect(cache.reserve(other, 3 * 64)).toBe(true);
    cache.release(other);
    expect(matchedHalf(cache, 'abcdxx')).toBe(1);
    const again = readHalf(cache, 'abcd');
    expect(matchedHalf(cache, 'abcdxx')).toBe(4);
    cache.release(again);
    expect(matchedHalf(cache, 'abcdxx')).toBe(4);
  });

  test('are shared by sequences that have passed them at different times', () => {
    const rows = new Rows(8);
    const cache = newCache(8, rows);
    const ahead = readHalf(cache, 'abcd');
    const behind = cache.open(cache.match('half', asked('abc'), halfPassing));
    expect([...behind.table.entries]).toEqual([...ahead.table.entries].slice(0, 3));
    cache.reserve(ahead, 6 * 64);
    cache.pass(ahead, halfPassing.passedPages(6 * 64));
    expect(rows.lost.size).toBe(0);
    // Page 3 is read by nobody's passing heads; pages 1 and 2, which one has passed, are by the other's.
    expect(cache.cachedRows).toBe(2);
    cache.release(ahead);
    cache.checkIntegrity();
    expect(cache.rowsHeld(behind)).toBe(3 * 4);
    cache.release(behind);
  });

  test('keep integrity and never lose a row that is read, through a random history', () => {
    const rows = new Rows(12);
    const cache = newCache(12, rows);
    let state = 7;
    const random = (n: number): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % 65521 % n;
    const open: { pages: SequencePages; letters: string; length: number }[] = [];
    let numMatched = 0;
    for (let step = 0; step < 3000; step++) {
      if (random(3) === 0 && open.length < 4) {
        const letters = Array.from({ length: 3 + random(9) }, (_, i) => (i < 4 ? 'a' : 'ab'[random(2)])).join('');
        const pages = cache.open(cache.match('half', asked(letters), halfPassing));
        numMatched += pages.table.length;
        open.push({ pages, letters, length: pages.table.length });
      }
      const turn = open[random(open.length)];
      if (turn !== undefined && turn.length < turn.letters.length && cache.reserve(turn.pages, 64 * (turn.length + 1))) {
        turn.length++;
        cache.commit(turn.pages, text(turn.letters), 64 * turn.length);
        cache.pass(turn.pages, halfPassing.passedPages(64 * turn.length));
      }
      if (random(6) === 0 && open.length > 0) cache.release(open.splice(random(open.length), 1)[0]!.pages);
      cache.checkIntegrity();
      for (const { pages: { table }, length } of open) {
        const { from, to } = halfPassing.passedPages(64 * length);
        table.entries.forEach((page, index) => { if (index < from || index >= to) expect(rows.lost.has(page)).toBe(false); });
      }
    }
    expect(numMatched).toBeGreaterThan(500);
    for (const { pages } of open) cache.release(pages);
    expect(cache.numHeld).toBe(0);
  });
});
