/** `npm run check:speculation`: 200 prompts (or as many as the first argument says), a table, exit code 1 where an answer differs. */
import { availableParallelism } from 'node:os';
import { compareGreedy } from './greedy-equality.ts';

const prompts = Number(process.argv[2] ?? 200);
let isEqual = true;
for (const { name, different, draftedTokens, acceptedTokens } of await compareGreedy({ prompts, maxTokens: 16, threads: availableParallelism() })) {
  isEqual &&= different.length === 0;
  console.log(`${name}: ${prompts - different.length} of ${prompts} answers equal; ${acceptedTokens} of ${draftedTokens} drafted tokens accepted ${JSON.stringify(different)}`);
}
process.exitCode = isEqual ? 0 : 1;
