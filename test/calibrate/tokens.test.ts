// From documents to token ids: lengths, what is shared, which tokens count.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { NUM_CONTENTS } from '../../calibrate/documents.ts';
import { tokenizeDocument } from '../../calibrate/tokens.ts';
import { packagePath } from '../../server/package.ts';
import { loadTextCodec } from '../../tokenizer/text-codec.ts';

const codec = await loadTextCodec(packagePath('models/longspan-16m'));
const book = readFileSync(packagePath('loadtest/texts/pride-and-prejudice.txt'), 'utf8');
const textOf = (tokens: Iterable<number>): string => codec.tokenizer.decode(tokens, { skipSpecial: false });

test.each(Array.from({ length: 2 * NUM_CONTENTS }, (_, seed) => seed))('seed %i: prompts are the document and a question, and what had to be looked up is counted', (seed) => {
  const { shared, asked } = tokenizeDocument(codec, { book, seed, length: 3000 });
  expect(Math.abs(shared.length - 3000)).toBeLessThan(60);
  for (const { tokens, answerFrom, counted } of asked) {
    const prompt = textOf([...shared, ...tokens.subarray(0, answerFrom)]);
    const question = prompt.slice(prompt.lastIndexOf('\n\n', prompt.indexOf('<|im_end|>')) + 2, prompt.indexOf('<|im_end|>'));
    const whole = codec.encodeChat([{ role: 'user', content: prompt.slice('<|im_start|>user\n'.length, prompt.indexOf('<|im_end|>')) }], {});
    expect([...shared, ...tokens.subarray(0, answerFrom)]).toEqual([...whole]);
    expect(question).toMatch(/^(What (is|are all) the special|Find all|Repeat the)/);
    expect(counted.every((at) => at >= answerFrom && at < tokens.length)).toBe(true);
  }
});

test.each(Array.from({ length: NUM_CONTENTS }, (_, seed) => seed))('seed %i: the tokens that count are those of the values', (seed) => {
  const { asked } = tokenizeDocument(codec, { book, seed, length: 3000 });
  for (const { tokens, answerFrom, counted } of asked) {
    const answer = textOf(tokens.subarray(answerFrom));
    const looked = textOf(counted.map((at) => tokens[at]!));
    // Numbers and names: nothing else counts, but for the spaces that tokens begin with. A passage: what the question did not give.
    if (/^The special/.test(answer)) expect(looked.replaceAll(' ', '')).toBe(answer.match(/\d{7}/g)!.join(''));
    else expect(answer.endsWith(looked.trimStart()) && looked.length > 20).toBe(true);
  }
});
