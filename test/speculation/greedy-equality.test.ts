// Every kind of drafting on the bundled model in fp32: a few of the 200 prompts of `npm run check:speculation`.
import { expect, test } from 'vitest';
import { compareGreedy } from './greedy-equality.ts';

test('greedy answers are those of plain dense decoding, whatever drafts', async () => {
  const comparisons = await compareGreedy({ prompts: 6, maxTokens: 10, threads: 2 });
  for (const { name, different, draftedTokens } of comparisons) {
    expect(different, name).toEqual([]);
    expect(draftedTokens, name).toBeGreaterThan(5);
  }
  // Drafts must have been kept and refused, or equality proves nothing; a book is seldom continued by its own n-grams.
  const sum = (of: (each: (typeof comparisons)[number]) => number): number => comparisons.reduce((total, each) => total + of(each), 0);
  expect(sum(({ acceptedTokens }) => acceptedTokens)).toBeGreaterThan(50);
  expect(sum(({ draftedTokens, acceptedTokens }) => draftedTokens - acceptedTokens)).toBeGreaterThan(10);
}, 240_000);
