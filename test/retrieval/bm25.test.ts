import { expect, test } from 'vitest';
import { SeededRandom } from '../seeded-random.ts';
import { Bm25Ranker, terms } from '../../retrieval/bm25.ts';

const rank = (question: string, chunks: string[]) => new Bm25Ranker().rank(question, chunks);

/** BM25+ (k1 1.2, b 0.7, delta 0.5) written out; a chunk is as long as it has different words. */
function plainScores(question: string, chunks: string[]): number[] {
  const words = chunks.map(terms);
  const lengths = words.map((each) => new Set(each).size);
  const meanLength = lengths.reduce((sum, length) => sum + length, 0) / chunks.length;
  const scoreOf = (term: string, chunk: number): number => {
    const count = words[chunk]!.filter((word) => word === term).length;
    const inChunks = words.filter((each) => each.includes(term)).length;
    const rarity = Math.log(1 + (chunks.length - inChunks + 0.5) / (inChunks + 0.5));
    return count === 0 ? 0 : rarity * (0.5 + (count * 2.2) / (count + 1.2 * (0.3 + (0.7 * lengths[chunk]!) / meanLength)));
  };
  return chunks.map((_, chunk) => terms(question).reduce((sum, term) => sum + scoreOf(term, chunk), 0));
}

test('scores are those of the formula', async () => {
  const random = new SeededRandom(1);
  const text = (length: number): string => Array.from({ length }, () => `w${Math.floor(30 * random.next() ** 3)}`).join(' ');
  const chunks = Array.from({ length: 50 }, () => text(1 + random.below(40)));
  const question = 'w0 w3 w3 w11 w25 w99';
  const plain = plainScores(question, chunks);
  (await rank(question, chunks)).forEach((score, i) => { expect(score).toBeCloseTo(plain[i]!, 9); });
});


test('a rare word of the question weighs more than its common ones', async () => {
  const common = 'it was the best of the times, it was the worst of the times';
  const scores = await rank('What was the number of the lantern?', Array.from({ length: 20 }, (_, i) => i === 7 ? 'a lantern stood there' : common));
  expect(scores.indexOf(Math.max(...scores))).toBe(7);
});

test('a chunk that shares no word with the question has score 0', async () => {
  expect(Array.from(await rank('lantern', ['apple', 'Lantern!', '', 'lanterns']))).toEqual([0, expect.closeTo(1.5, 0), 0, 0]);
});

test('words are letters and digits of any script, in lower case; scripts without spaces give characters', () => {
  expect(terms("Silver-Lantern is: 2859374, naïve; ЖУК's")).toEqual(['silver', 'lantern', 'is', '2859374', 'naïve', 'жук', 's']);
  expect(terms('東京tower')).toEqual(['東', '京', 'tower']);
  expect(terms(' .,\n')).toEqual([]);
});

test('a question without words finds nothing', async () => {
  expect(Array.from(await rank('???', ['a', 'b']))).toEqual([0, 0]);
  expect(await rank('a', [])).toHaveLength(0);
});
