// Every kind of drafting on the bundled model in fp32: a few of the 200 prompts of `npm run check:speculation`.
import { expect, test } from 'vitest';
import { compareGreedy } from './greedy-equality.ts';

test('greedy answers are those of plain dense decoding, whatever drafts', async () => {
  for (const { name, different, draftedTokens, acceptedTokens } of await compareGreedy({ prompts: 6, maxTokens: 10, threads: 2 })) {
    expect(different, name).toEqual([]);
    expect(draftedTokens, name).toBeGreaterThan(10);
    expect(acceptedTokens, name).toBeGreaterThan(0);
  }
}, 240_000);
