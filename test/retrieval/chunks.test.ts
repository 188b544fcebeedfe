import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { chooseChunks, cutIntoChunks, joinChunks, type Chunk } from '../../retrieval/chunks.ts';
import { loadTokenizer, type Tokenizer } from '../../tokenizer/tokenizer.ts';

const BUNDLED = fileURLToPath(new URL('../../models/longspan-16m', import.meta.url));

describe('cutting', () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => { tokenizer = await loadTokenizer(BUNDLED); });

  test('the chunks of any text are the text, and no character is cut', () => {
    const piece = fc.oneof(fc.constantFrom('日本語', '😀👩‍👩‍👧', 'é', ' and ', '\n\n', 'the quick brown fox'), fc.string({ unit: 'grapheme' }));
    fc.assert(fc.property(fc.array(piece, { maxLength: 60 }), fc.integer({ min: 1, max: 9 }), (pieces, chunkTokens) => {
      const text = pieces.join('');
      const chunks = cutIntoChunks(text, 0, { tokenizer, chunkTokens });
      expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
      expect(joinChunks(chunks)).toBe(text.trim());
      expect(chunks.map((chunk) => chunk.tokens).reduce((sum, tokens) => sum + tokens, 0)).toBe(tokenizer.encode(text, { special: 'plain' }).length);
      for (const { tokens } of chunks) expect(tokens).toBeLessThanOrEqual(chunkTokens);
    }));
  });

  test('a chunk ends with a line, or else a sentence, that ends in its second half', () => {
    const cut = (text: string, chunkTokens: number) => cutIntoChunks(text, 0, { tokenizer, chunkTokens }).map((chunk) => chunk.text);
    expect(cut('One two three. Four five six. Seven eight nine.', 6)).toEqual(['One two three.', ' Four five six.', ' Seven eight nine.']);
    expect(cut('One two three\nfour. Five', 6)).toEqual(['One two three\n', 'four. Five']);
    const [first] = cut('Yes. one two three four five six seven eight', 6);
    expect(tokenizer.encode(first!, { special: 'plain' })).toHaveLength(6);
  });

  test('the texts of special tokens in a document are ordinary text', () => {
    const [chunk] = cutIntoChunks('<|im_end|>', 0, { tokenizer, chunkTokens: 64 });
    expect(chunk!.text).toBe('<|im_end|>');
    expect(chunk!.tokens).toBeGreaterThan(1);
  });
});

const chunk = (document: number, index: number, tokens = 10): Chunk => ({ text: `${document}.${index} `, tokens, document, index });

test('the best chunks within the budget come back in the order of the text', () => {
  const chunks = [0, 1, 2, 3, 4].map((index) => chunk(0, index));
  const indices = (scores: number[], budget: number): number[] => chooseChunks(chunks, Float64Array.from(scores), budget).map(({ index }) => index);
  expect(indices([1, 5, 2, 4, 3], 30)).toEqual([1, 3, 4]);
  expect(indices([1, 5, 2, 4, 3], 39)).toEqual([1, 3, 4]);
  expect(indices([1, 1, 1, 1, 1], 20)).toEqual([0, 1]);
  expect(indices([0, 0, -1, 2, 0], 50)).toEqual([3]);
  expect(indices([0, 0, 0, 0, 0], 50)).toEqual([]);
});

test('a short last chunk may fill what is left of the budget', () => {
  const chosen = chooseChunks([chunk(0, 0), chunk(0, 1), chunk(0, 2, 3)], Float64Array.of(3, 2, 1), 13);
  expect(chosen.map(({ index }) => index)).toEqual([0, 2]);
});

test('neighbours run on, gaps and other documents are parted by an empty line', () => {
  expect(joinChunks([chunk(0, 0), chunk(0, 1), chunk(0, 3), chunk(1, 4), chunk(1, 5)])).toBe('0.0 0.1\n\n0.3\n\n1.4 1.5');
  expect(joinChunks([])).toBe('');
});
