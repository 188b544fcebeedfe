// Needle prompts: what is asked for is in the text, and seeds decide everything.
import { expect, test } from 'vitest';
import { writeNeedlePrompt } from '../../calibrate/needle-prompts.ts';

const book = Array.from({ length: 300 }, (_, i) => `Line ${i} of a book that says little.\n`).join('');

test.each([0, 1, 2, 3])('the text holds sixteen needles, each after a line, and the answer is the one asked for (seed %i)', (seed) => {
  const { question, answer } = writeNeedlePrompt(book, seed, 6000);
  const needles = [...question.matchAll(/(?<=(.)) One of the special magic numbers for (\S+) is: (\d{7})\./gs)];
  expect(needles).toHaveLength(16);
  expect(new Set(needles.map(([, , key]) => key)).size).toBe(16);
  expect(needles.every(([, before]) => before === '\n' || before === '.')).toBe(true);
  const [, asked] = /What is the special magic number for (\S+) mentioned/.exec(question)!;
  const value = needles.find(([, , key]) => key === asked)![3]!;
  expect(answer).toBe(`The special magic number for ${asked!} mentioned in the provided text is ${value}.`);
});

test('a seed gives the same prompt always, another one another', () => {
  expect(writeNeedlePrompt(book, 7, 3000)).toEqual(writeNeedlePrompt(book, 7, 3000));
  expect(writeNeedlePrompt(book, 8, 3000)).not.toEqual(writeNeedlePrompt(book, 7, 3000));
});

test('texts longer than the book begin it again', () => {
  expect(writeNeedlePrompt(book, 1, 3 * book.length).question.length).toBeGreaterThan(3 * book.length);
});
