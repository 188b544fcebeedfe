import { expect, test } from 'vitest';
import { IdBuffer } from '../../tokenizer/section-encoder.ts';
import { MAX_CACHED_CHARS, WordCache } from '../../tokenizer/word-cache.ts';

/** The ids that are remembered for a word, or null. */
function recall(cache: WordCache, word: string): number[] | null {
  const out = new IdBuffer();
  return cache.appendTo(word, out) ? [...out.toIds()] : null;
}

test('a word comes back with its own ids, short or long', () => {
  const cache = new WordCache();
  const long = 'x'.repeat(MAX_CACHED_CHARS);
  cache.remember('a', Int32Array.of(7, 8, 9), 1);
  cache.remember(long, new Int32Array(144).map((_, i) => i), 144);
  expect(recall(cache, 'a')).toEqual([7]);
  expect(recall(cache, long)).toEqual(Array.from({ length: 144 }, (_, i) => i));
  expect(recall(cache, 'b')).toBeNull();
});

test('many long words never spoil what is remembered', () => {
  const cache = new WordCache();
  const ids = (i: number) => new Int32Array(144).fill(i);
  for (let i = 0; i < 20_000; i++) {
    cache.remember(`w${i}`, ids(i), 144);
    expect(recall(cache, `w${i}`)).toHaveLength(144);
  }
  const kept = Array.from({ length: 20_000 }, (_, i) => i).filter((i) => recall(cache, `w${i}`) !== null);
  expect(kept.length).toBeLessThan(20_000);
  for (const i of kept) expect(recall(cache, `w${i}`)).toEqual([...ids(i)]);
});
