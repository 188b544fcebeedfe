import { afterEach, describe, expect, test } from 'vitest';
import { KvCache, type SequencePages } from '../../kvcache/kv-cache.ts';

/** `pages` pages of text; pages with the same letter have the same tokens. */
function text(letters: string): Int32Array {
  return Int32Array.from(Array.from(letters).flatMap((letter) => new Array<number>(64).fill(letter.charCodeAt(0))));
}

/** One past the text, so that a match may cover it whole. */
function asked(letters: string): Int32Array {
  return Int32Array.from([...text(letters), 7]);
}

const caches: KvCache[] = [];
afterEach(() => {
  for (const cache of caches.splice(0)) cache.checkIntegrity();
});

function newCache(numPages: number): KvCache {
  const cache = new KvCache(numPages);
  caches.push(cache);
  return cache;
}

/** A sequence that has computed the text and shared it. */
function compute(cache: KvCache, letters: string, namespace = 'n'): SequencePages {
  const pages = cache.open(cache.match(namespace, asked(letters), 64));
  expect(cache.reserve(pages, letters.length * 64)).toBe(true);
  cache.commit(pages, text(letters), letters.length * 64);
  cache.checkIntegrity();
  return pages;
}

function matched(cache: KvCache, letters: string, namespace = 'n'): number {
  return cache.match(namespace, asked(letters), 64).pages.length;
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
    expect(cache.match('n', text('ab'), 64).pages).toHaveLength(1);
    expect(cache.match('n', text('ab').subarray(0, 1), 64).pages).toHaveLength(0);
  });

  test('shares pages that are computed as one only where all of their tokens agree', () => {
    const cache = newCache(16);
    const share = (letters: string): SequencePages => {
      const pages = cache.open(cache.match('n', asked(letters), 128));
      cache.reserve(pages, letters.length * 64);
      cache.commit(pages, text(letters), Math.floor(letters.length / 2) * 128);
      cache.checkIntegrity();
      return pages;
    };
    const find = (letters: string): number => cache.match('n', asked(letters), 128).pages.length;
    const one = share('abcd');
    expect([find('abcd'), find('abcx'), find('abc'), find('ax')]).toEqual([4, 2, 2, 0]);
    const other = share('abcx');
    expect(other.table.entries[2]).not.toBe(one.table.entries[2]);
    for (const [letters, pages] of [['abcd', one], ['abcx', other]] as const) {
      expect(cache.match('n', asked(letters), 128).pages).toEqual([...pages.table.entries]);
    }
  });

  test('ends a match at a whole span when the end of the next is evicted', () => {
    const cache = newCache(4);
    const pages = cache.open(cache.match('n', asked('abcd'), 128));
    cache.reserve(pages, 256);
    cache.commit(pages, text('abcd'), 256);
    cache.release(pages);
    const other = compute(cache, 'x');
    expect(cache.numCached).toBe(3);
    expect(cache.match('n', asked('abcd'), 128).pages).toHaveLength(2);
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
    const pages = cache.open(cache.match('n', text('ab'), 64));
    cache.reserve(pages, 100);
    cache.commit(pages, text('ab'), 64);
    cache.release(pages);
    expect([cache.numHeld, cache.numCached, cache.numFree]).toEqual([0, 1, 15]);
  });

  test('gives up its copy of a page that is shared already', () => {
    const cache = newCache(8);
    const one = cache.open(cache.match('n', asked('ab'), 64));
    const two = cache.open(cache.match('n', asked('ab'), 64));
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
    const again = cache.open(cache.match('n', asked('a').subarray(0, 1), 64));
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
    const other = cache.open(cache.match('n', asked('xy'), 64));
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
    const pages = cache.open(cache.match('n', text('abcdef'), 64));
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
    expect(cache.numAvailableAfter(cache.match('n', asked('abc'), 64))).toBe(5);
    expect(cache.numAvailableAfter(cache.match('n', asked('x'), 64))).toBe(8);
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
      const pages = cache.open(cache.match('n', asked(letters), 64));
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
