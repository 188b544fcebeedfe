/**
 * `npm run check:speculation -- [PROMPTS [FROM]]`: greedy answers of every drafter against plain decoding over 200 prompts,
 * or so many from the FROMth on, so that they can be compared in parts. A table; exit code 1 where an answer differs.
 */
import { availableParallelism } from 'node:os';
import { compareGreedy } from './greedy-equality.ts';

const [prompts = 200, from = 0] = process.argv.slice(2).map(Number);
let isEqual = true;
for (const { name, different, draftedTokens, acceptedTokens } of await compareGreedy({ prompts, from, maxTokens: 16, threads: availableParallelism() })) {
  isEqual &&= different.length === 0;
  console.log(`${name}: ${prompts - different.length} of ${prompts} answers equal; ${acceptedTokens} of ${draftedTokens} drafted tokens accepted ${JSON.stringify(different)}`);
}
process.exitCode = isEqual ? 0 : 1;
