import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { describe, expect, test } from 'vitest';
import { ByteLevelBpe } from '../../tokenizer/byte-level-bpe.ts';
import { mergeLong, mergeShort } from '../../tokenizer/bpe-merge.ts';
import { MergeTable } from '../../tokenizer/merge-table.ts';
import type { TokenizerJson } from '../../tokenizer/model-files.ts';
import { createTokenizer } from '../../tokenizer/tokenizer.ts';
import { Vocabulary } from '../../tokenizer/vocabulary.ts';
import { ODD_TEXTS, oddText } from './odd-texts.ts';
import { byteLevelJson, SPECIALS, VARIANTS } from './synthetic.ts';

const BUNDLED = new URL('../../models/longspan-16m/tokenizer.json', import.meta.url);
const bundled = () => JSON.parse(readFileSync(BUNDLED, 'utf8')) as TokenizerJson;

const sources: [string, () => TokenizerJson][] = [
  ['the bundled tokenizer', bundled],
  ...Object.keys(VARIANTS).map((name): [string, () => TokenizerJson] => [name, () => byteLevelJson(name)]),
];

describe.each(sources)('%s', (name, load) => {
  const json = load();
  // The library's Digits step knows ASCII digits only.
  const known = name === 'digits first' ? oddText.map((text) => text.replace(/[^\P{N}0-9]/gu, '')) : oddText;
  const ours = createTokenizer(json, {});
  const library = new Library(json, {});
  const plainLibrary = new Library({ ...json, added_tokens: (json.added_tokens ?? []).filter((token) => token.special !== true) }, {});
  const theirs = (text: string) => library.encode(text, { add_special_tokens: false }).ids;

  test('is encoded by our own encoder, not by the library', () => {
    expect(ByteLevelBpe.from(json, new Vocabulary(json))).not.toBeNull();
  });

  test('encodes odd texts as the library does', () => {
    for (const text of ODD_TEXTS) expect([text, ...ours.encode(text, { special: 'parse' })]).toEqual([text, ...theirs(text)]);
  });

  test('encodes any text as the library does', () => {
    fc.assert(fc.property(known, (text) => {
      expect([...ours.encode(text, { special: 'parse' })]).toEqual(theirs(text));
    }), { numRuns: 300 });
  });

  test('leaves special tokens as text when they are not to be parsed', () => {
    fc.assert(fc.property(known, (text) => {
      const ids = [...ours.encode(text, { special: 'plain' })];
      expect(ids).toEqual(plainLibrary.encode(text, { add_special_tokens: false }).ids);
      expect(ids.some((id) => ours.isSpecial(id))).toBe(false);
    }), { numRuns: 100 });
  });

  test('decodes to the text that was encoded', () => {
    const normal = (text: string) => (json.normalizer === null ? text : text.normalize('NFC'));
    const prefixed = (text: string) => (json.pre_tokenizer?.['add_prefix_space'] === true ? text.replaceAll(' ', '') : text);
    fc.assert(fc.property(oddText, (text) => {
      const back = ours.decode(ours.encode(text, { special: 'parse' }), { skipSpecial: false });
      expect(prefixed(back)).toBe(prefixed(normal(text)));
    }), { numRuns: 100 });
  });

  test('joins the bytes of its tokens to the bytes of the text', () => {
    const text = ' the 日本語 😀 dog<|im_end|>';
    const ids = [...ours.encode(text, { special: 'parse' })];
    expect(Buffer.concat(ids.map((id) => ours.tokenBytes(id))).toString()).toBe(text);
  });
});

describe('added tokens', () => {
  const withAdded = (options: object) => {
    const json = byteLevelJson('GPT-2');
    return createTokenizer({ ...json, added_tokens: [...json.added_tokens ?? [], { id: 900, content: '[X]', special: true, ...options }] }, {});
  };
  const spell = (tokenizer: ReturnType<typeof withAdded>, text: string) =>
    tokenizer.decode(tokenizer.encode(text, { special: 'parse' }), { skipSpecial: false });

  test('lstrip takes the white space before the token', () => {
    expect(spell(withAdded({ lstrip: true }), 'a \n\t[X] b')).toBe('a[X] b');
  });

  test('rstrip takes the white space after it', () => {
    expect(spell(withAdded({ rstrip: true }), 'a [X] \n b')).toBe('a [X]b');
  });

  test('white space taken by rstrip may still begin the next token', () => {
    const json = byteLevelJson('GPT-2');
    const added = [{ id: 900, content: '[X]', special: true, rstrip: true }, { id: 901, content: ' Y', special: true }];
    const tokenizer = createTokenizer({ ...json, added_tokens: added }, {});
    expect([...tokenizer.encode('a[X] Yb', { special: 'parse' })]).toEqual([tokenizer.idOf('a'), 900, 901, tokenizer.idOf('b')]);
  });

  test('single_word leaves a token alone that touches a word', () => {
    const tokenizer = withAdded({ single_word: true });
    const count = (text: string) => [...tokenizer.encode(text, { special: 'parse' })].filter((id) => id === 900).length;
    expect([count('[X]'), count(' [X],'), count('a[X]'), count('[X]é')]).toEqual([1, 1, 0, 0]);
  });

  test('of two tokens that begin at one place the longer is taken', () => {
    const json = byteLevelJson('GPT-2');
    const tokenizer = createTokenizer({ ...json, added_tokens: [{ id: 900, content: '<a', special: true }, { id: 901, content: '<a>', special: true }] }, {});
    expect([...tokenizer.encode('<a><a', { special: 'parse' })]).toEqual([901, 900]);
  });

  test('a normalised token is found in normalised text', () => {
    const json = byteLevelJson('Qwen2 with NFC');
    const tokenizer = createTokenizer({ ...json, added_tokens: [{ id: 900, content: 'é!', normalized: true }] }, {});
    expect([...tokenizer.encode('e\u0301!', { special: 'parse' })]).toEqual([900]);
  });

  test('normalisation never makes a special token', () => {
    const json = byteLevelJson('Qwen2 with NFC');
    const tokenizer = createTokenizer({ ...json, added_tokens: [{ id: 900, content: '[K]', special: true, normalized: true }] }, {});
    expect([...tokenizer.encode('[\u212a]', { special: 'parse' })]).not.toContain(900);
  });
});

describe('merging', () => {
  test('the heap and the scan give the same symbols', () => {
    const pairs = fc.array(fc.tuple(fc.nat(5), fc.nat(5)), { minLength: 1, maxLength: 30 });
    fc.assert(fc.property(pairs, fc.array(fc.nat(3), { maxLength: 120 }), (merges, symbols) => {
      // Merged ids stay within the small alphabet, so that merges chain.
      const table = new MergeTable(Int32Array.from(merges.flatMap(([left, right]) => [left, right, (left + right) % 6])));
      const short = Int32Array.from(symbols);
      const long = Int32Array.from(symbols);
      const kept = mergeShort(short, short.length, table);
      expect(mergeLong(long, long.length, table)).toBe(kept);
      expect(long.slice(0, kept)).toEqual(short.slice(0, kept));
    }), { numRuns: 1000 });
  });

  test('a megabyte without a space comes back whole', () => {
    const tokenizer = createTokenizer(bundled(), {});
    for (const text of ['a'.repeat(1e6), '漢字'.repeat(2e5), ' '.repeat(1e6)]) {
      expect(tokenizer.decode(tokenizer.encode(text, { special: 'plain' }), { skipSpecial: false }) === text).toBe(true);
    }
  });

  test('more distinct words than are remembered change nothing', () => {
    const json = bundled();
    const tokenizer = createTokenizer(json, {});
    const text = Array.from({ length: 80_000 }, (_, i) => `w${i.toString(36)}`).join(' ');
    const again = tokenizer.encode(text, { special: 'plain' });
    expect(tokenizer.encode(text, { special: 'plain' })).toEqual(again);
    expect([...again.subarray(0, 2000)]).toEqual(new Library(json, {}).encode(text.slice(0, 20_000), { add_special_tokens: false }).ids.slice(0, 2000));
  });
});

test('a pattern that cannot be translated goes through the library', () => {
  const json = withPattern(String.raw`\b\w+`);
  expect(ByteLevelBpe.from(json, new Vocabulary(json))).toBeNull();
  const text = 'some words, 12';
  expect([...createTokenizer(json, {}).encode(text, { special: 'parse' })]).toEqual(new Library(json, {}).encode(text).ids);
});

test('the test vocabulary has the special tokens that the texts name', () => {
  expect(createTokenizer(byteLevelJson('GPT-2'), {}).specials).toEqual([...SPECIALS]);
});

/** A byte-level tokenizer.json split by this pattern. */
function withPattern(regex: string): TokenizerJson {
  const json = byteLevelJson('GPT-2');
  const split = { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false };
  return { ...json, pre_tokenizer: { type: 'Sequence', pretokenizers: [split, { type: 'ByteLevel', use_regex: false }] } };
}
