import { describe, expect, test } from 'vitest';
import { StreamDecoder } from '../../tokenizer/stream-decoder.ts';
import { createTokenizer } from '../../tokenizer/tokenizer.ts';
import { byteLevelJson, metaspaceJson } from './synthetic.ts';

const TEXT = 'the dog 😀 👩‍👩‍👧‍👦 日本語 नमस्ते \ufeffé';
const tokenizers = { 'byte-level': createTokenizer(byteLevelJson('GPT-2'), {}), metaspace: createTokenizer(metaspaceJson('first'), {}) };

describe.each(Object.entries(tokenizers))('%s', (_name, tokenizer) => {
  const ids = [...tokenizer.encode(TEXT, { special: 'plain' })];

  test('the pieces are the text, and none holds half a character', () => {
    const decoder = new StreamDecoder(tokenizer, { skipSpecial: true });
    const pieces = [...ids.map((id) => decoder.push(id)), decoder.flush()];
    expect(pieces.join('').trimStart()).toBe(TEXT);
    expect(pieces.join('')).not.toContain('\ufffd');
    expect(pieces.some((piece) => /\p{Surrogate}/u.test(piece))).toBe(false);
    expect(pieces).toContain('');
  });

  test('the bytes of the tokens are the bytes of the text', () => {
    const decoder = new StreamDecoder(tokenizer, { skipSpecial: true });
    expect(Buffer.concat(ids.map((id) => decoder.bytesOf(id))).toString().trimStart()).toBe(TEXT);
  });
});

test('a character that is never completed ends as one replacement character', () => {
  const decoder = new StreamDecoder(tokenizers['byte-level'], { skipSpecial: true });
  const ids = [...tokenizers['byte-level'].encode('😀', { special: 'plain' })];
  expect(ids.slice(0, -1).map((id) => decoder.push(id)).join('')).toBe('');
  expect(decoder.flush()).toBe('\ufffd');
});

test('a byte order mark at the start is text', () => {
  const decoder = new StreamDecoder(tokenizers['byte-level'], { skipSpecial: true });
  const ids = [...tokenizers['byte-level'].encode('\ufeffa', { special: 'plain' })];
  expect(ids.map((id) => decoder.push(id)).join('')).toBe('\ufeffa');
});

test('special tokens are shown or skipped as asked', () => {
  const ids = [...tokenizers['byte-level'].encode('a<|im_end|>', { special: 'parse' })];
  const textOf = (skipSpecial: boolean) => {
    const decoder = new StreamDecoder(tokenizers['byte-level'], { skipSpecial });
    return ids.map((id) => decoder.push(id)).join('');
  };
  expect([textOf(true), textOf(false)]).toEqual(['a', 'a<|im_end|>']);
});

test('a space at the start stays, since the text goes on from a prompt', () => {
  const decoder = new StreamDecoder(tokenizers.metaspace, { skipSpecial: true });
  expect(decoder.push(tokenizers.metaspace.idOf('▁hello')!)).toBe(' hello');
});
