// Documents to measure heads on: what is asked for is in the text, and seeds decide everything.
import { describe, expect, test } from 'vitest';
import { NUM_CONTENTS, writeDocument } from '../../calibrate/documents.ts';

const book = Array.from({ length: 300 }, (_, i) => `Paragraph ${i} of a book, number ${i * i} of them, says little.\n\nIt says ${i}.\n`).join('');
const [numbers, chain, passage] = [0, 1, 2].map((first) => [0, 1, 2].map((i) => first + i * NUM_CONTENTS));

describe.each(numbers!)('16 keys, seed %i', (seed) => {
  const { text, questions } = writeDocument(book, seed, 6000);
  const needles = [...text.matchAll(/(?<=(.)) One of the special magic numbers for (\S+) is: (\d{7})\.(?=(.))/gs)].map(([, before, key, value]) => ({ before, key: key!, value: value! }));
  const valuesOf = (key: string): string[] => needles.filter((needle) => needle.key === key).map(({ value }) => value);

  test('one key has four numbers and the others one each; each stands where a line ends, and no line is parted from its empty one', () => {
    expect(needles).toHaveLength(19);
    expect([...new Set(needles.map(({ key }) => key))].map((key) => valuesOf(key).length).sort()).toEqual([...Array<number>(15).fill(1), 4]);
    expect(needles.every(({ before }) => before === '\n' || before === '.')).toBe(true);
    expect(text).not.toMatch(/\d{7}\.\n/);
  });

  test('the answers hold the numbers of the keys that are asked for, in the order of the question or the text', () => {
    expect(questions.map(({ kind }) => kind)).toEqual(['multi-key', 'multi-value', 'multi-query']);
    for (const { text: question, answer, values } of questions) {
      const keys = question.match(/[a-z]+-[a-z]+(?=,| mentioned)/g)!;
      expect(values).toEqual(keys.flatMap(valuesOf));
      expect(answer.match(/\d{7}/g)).toEqual(values);
    }
    expect(questions.map(({ values }) => values.length)).toEqual([1, 4, 4]);
  });
});

test.each(chain!)('a chain of five variables stands in its order, all of which is asked for (seed %i)', (seed) => {
  const { text, questions: [question] } = writeDocument(book, seed, 4000);
  const assigned = [...text.matchAll(/ VAR ([A-Z]{5}) = (?:VAR )?(\S+)\./g)].map(([, name, from]) => ({ name: name!, from: from! }));
  expect(assigned).toHaveLength(5);
  expect(question!.text).toContain(`the value ${assigned[0]!.from} `);
  expect(assigned.slice(1).map(({ from }) => from)).toEqual(assigned.slice(0, 4).map(({ name }) => name));
  expect(question!.answer).toBe(assigned.map(({ name }) => name).join(' '));
  expect(question!.values).toEqual(assigned.map(({ name }) => name));
});

test.each(passage!)('one number, and a passage of the first half whose beginning the question gives (seed %i)', (seed) => {
  const { text, questions: [needle, quote] } = writeDocument(book, seed, 8000);
  expect(text).toContain(` One of the special magic numbers for ${/number for (\S+)/.exec(needle!.text)![1]!} is: ${needle!.values[0]!}.`);
  const [, given] = /^Repeat the passage that begins with "(.*)"\.$/s.exec(quote!.text)!;
  expect(quote!.answer).toBe(given! + quote!.values[0]!);
  const at = book.indexOf(quote!.answer);
  expect(at === 0 || book.slice(at - 1, at) === '\n').toBe(true);
  expect(quote!.answer.split(/\s+/)).toHaveLength(60);
});

test('a seed gives the same document always, another one another', () => {
  expect(writeDocument(book, 6, 3000)).toEqual(writeDocument(book, 6, 3000));
  expect(writeDocument(book, 9, 3000)).not.toEqual(writeDocument(book, 6, 3000));
});

test('texts longer than the book begin it again', () => {
  expect(writeDocument(book, 1, 3 * book.length).text.length).toBeGreaterThan(3 * book.length);
});
