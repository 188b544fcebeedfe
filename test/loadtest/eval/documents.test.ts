import { describe, expect, it } from 'vitest';
import { needleDocument, needlesDocument, variablesDocument, wordsDocument } from '../../../loadtest/eval/documents.ts';
import { drawKeys, drawNumbers, shuffle, wordsOf } from '../../../loadtest/eval/words.ts';
import { readBook } from '../../../loadtest/prompts.ts';
import { seededRandom } from '../../../loadtest/random.ts';

const SEEDS = Array.from({ length: 30 }, (_, seed) => seed);

/** number -> key, as the sentences of a document say. */
function needlesOf(sentences: readonly string[]): Map<string, string> {
  return new Map(sentences.map((sentence) => {
    const [, key, value] = /^ One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d{7})\.$/.exec(sentence)!;
    return [value!, key!];
  }));
}

describe('documents', () => {
  it('are functions of their seed, with places in order', () => {
    for (const make of [needleDocument, needlesDocument, variablesDocument]) {
      expect(make(4)).toEqual(make(4));
      expect(make(4)).not.toEqual(make(5));
      for (const seed of SEEDS) {
        const { places, sentences } = make(seed);
        expect(places).toHaveLength(sentences.length);
        expect(places).toEqual(places.toSorted((a, b) => a - b));
      }
    }
  });

  it('hold every value that is asked for, and each right answer holds its values', () => {
    const vocabulary = wordsOf(readBook());
    for (const seed of SEEDS) {
      for (const document of [needleDocument(seed), needlesDocument(seed), variablesDocument(seed), wordsDocument(seed, 600, vocabulary)]) {
        const text = document.kind === 'list' ? document.body : document.sentences.join('');
        for (const { values, answer } of document.questions) {
          expect(new Set(values).size).toBe(values.length);
          for (const value of values) {
            expect(text).toContain(value);
            expect(answer).toContain(value);
          }
        }
      }
    }
  });

  it('of many needles ask for four keys alone, for all numbers of the one that has four, and for four keys together', () => {
    for (const seed of SEEDS) {
      const { sentences, questions } = needlesDocument(seed);
      const keyOf = needlesOf(sentences);
      expect(keyOf.size).toBe(19);
      expect(new Set(keyOf.values()).size).toBe(16);
      const byTask = (task: string) => questions.filter((question) => question.task === task);
      expect(byTask('multi-key').map(({ values }) => values.length)).toEqual([1, 1, 1, 1]);
      for (const { values, text } of questions) for (const value of values) expect(text).toContain(keyOf.get(value)!);
      const many = byTask('multi-value')[0]!.values;
      expect(many).toEqual([...keyOf].filter(([, key]) => key === keyOf.get(many[0]!)).map(([value]) => value));
      expect(many).toHaveLength(4);
      expect(new Set(byTask('multi-query')[0]!.values.map((value) => keyOf.get(value)!)).size).toBe(4);
    }
  });

  it('of variables chain four assignments to one number', () => {
    const { sentences, questions } = variablesDocument(3);
    const { values, text } = questions[0]!;
    const number = /value (\d{5}) /.exec(text)![1];
    expect(sentences).toEqual([` VAR ${values[0]} = ${number}.`, ...values.slice(1).map((name, i) => ` VAR ${name} = VAR ${values[i]}.`)]);
  });

  it.each([300, 600, 3000, 20_000])('of %i words name ten of them ten times as often as every other', (entries) => {
    const { body, questions: [question] } = wordsDocument(entries, entries, wordsOf(readBook()));
    const counts = new Map<string, number>();
    for (const [, word] of body.matchAll(/\d+\. ([a-z]+)/g)) counts.set(word!, (counts.get(word!) ?? 0) + 1);
    const times = [...new Set(counts.values())].sort((a, b) => a - b);
    expect(times).toEqual([times[0], 10 * times[0]!]);
    expect([...counts].filter(([, count]) => count === times[1]).map(([word]) => word).sort()).toEqual(question!.values.toSorted());
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    expect(Math.abs(total / entries - 1)).toBeLessThan(0.1);
  });
});

describe('words', () => {
  it('are drawn without repetition', () => {
    const random = seededRandom(1);
    expect(new Set(drawKeys(random, 500)).size).toBe(500);
    expect(new Set(drawNumbers(random, 90, 2)).size).toBe(90);
  });

  it('of a book are its own, lower case, each once', () => {
    const words = wordsOf(readBook());
    expect(words.length).toBeGreaterThan(3000);
    expect(new Set(words).size).toBe(words.length);
    expect(words.every((word) => /^[a-z]{4,9}$/.test(word))).toBe(true);
  });

  it('are shuffled, all of them', () => {
    const values = Array.from({ length: 50 }, (_, i) => i);
    const shuffled = shuffle(seededRandom(2), [...values]);
    expect(shuffled).not.toEqual(values);
    expect(shuffled.toSorted((a, b) => a - b)).toEqual(values);
  });
});
