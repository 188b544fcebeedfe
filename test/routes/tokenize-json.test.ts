import { expect, test } from 'vitest';
import { tokenizeJson, type Tokenization } from '../../routes/tokenize-json.ts';

async function written(parts: Tokenization): Promise<{ pieces: number; turns: number; body: unknown }> {
  let turns = 0;
  const count = (): void => { turns++; timer = setImmediate(count); };
  let timer = setImmediate(count);
  let text = '';
  let pieces = 0;
  for await (const piece of tokenizeJson(parts)) {
    text += piece;
    pieces++;
  }
  clearImmediate(timer);
  return { pieces, turns, body: JSON.parse(text) };
}

test.each([0, 1, 16_383, 16_384, 16_385, 100_000])('%i ids are the same JSON as in one go', async (count) => {
  const tokens = Int32Array.from({ length: count }, (_, index) => (index * 2_654_435) % 151_936);
  const { body } = await written({ tokens, maxModelLen: 131_072, nameOf: null });
  expect(body).toEqual({ count, max_model_len: 131_072, tokens: [...tokens], token_strs: null });
});

test('the texts of tokens are escaped', async () => {
  const tokens = Int32Array.of(0, 1, 2);
  const nameOf = (token: number): string => ['"', '\n', 'é\u2028'][token]!;
  const { body } = await written({ tokens, maxModelLen: 8, nameOf });
  expect(body).toEqual({ count: 3, max_model_len: 8, tokens: [0, 1, 2], token_strs: ['"', '\n', 'é\u2028'] });
});

test('the event loop turns between the slices of a long list', async () => {
  const { pieces, turns } = await written({ tokens: new Int32Array(1_000_000), maxModelLen: 8, nameOf: null });
  expect(pieces).toBeGreaterThan(60);
  expect(turns).toBeGreaterThanOrEqual(60);
});
