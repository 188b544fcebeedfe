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

test.each(Array.from({ length: 2 * NUM_CONTENTS }, (_, seed) => seed))('seed %i: prompts are the document and a question, and what counts is of the answer', (seed) => {
  const { shared, asked } = tokenizeDocument(codec, { book, seed, length: 3000 });
  expect(Math.abs(shared.length - 3000)).toBeLessThan(60);
  for (const { tokens, answerFrom, countedFrom } of asked) {
    const prompt = textOf([...shared, ...tokens.subarray(0, answerFrom)]);
    const question = prompt.slice(prompt.lastIndexOf('\n\n', prompt.indexOf('<|im_end|>')) + 2, prompt.indexOf('<|im_end|>'));
    const whole = codec.encodeChat([{ role: 'user', content: prompt.slice('<|im_start|>user\n'.length, prompt.indexOf('<|im_end|>')) }], {});
    expect([...shared, ...tokens.subarray(0, answerFrom)]).toEqual([...whole]);
    expect(question).toMatch(/^(What (is|are all) the special|Find all|Repeat the)/);
    expect(countedFrom).toBeGreaterThanOrEqual(answerFrom);
    expect(countedFrom).toBeLessThan(tokens.length);
  }
});

test.each(Array.from({ length: NUM_CONTENTS }, (_, seed) => seed))('seed %i: what counts begins with the first value', (seed) => {
  const { asked } = tokenizeDocument(codec, { book, seed, length: 3000 });
  for (const { kind, tokens, answerFrom, countedFrom } of asked) {
    const [answer, counted] = [textOf(tokens.subarray(answerFrom)), textOf(tokens.subarray(countedFrom))];
    expect(answer.endsWith(counted)).toBe(true);
    if (kind === 'variable-tracking') expect(counted).toBe(answer);
    else if (kind === 'quote') expect(counted.length).toBeLessThan(answer.length - 15);
    else expect(counted.trimStart()).toBe(/\d.*$/s.exec(answer)![0]);
  }
});
