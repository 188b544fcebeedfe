import { describe, expect, test } from 'vitest';
import { MIN_CACHED_CHARS, SectionCache, type LongSection } from '../../tokenizer/section-cache.ts';
import { IdBuffer } from '../../tokenizer/section-encoder.ts';
import { createTokenizer, type EncodeOptions } from '../../tokenizer/tokenizer.ts';
import { byteLevelJson, metaspaceJson } from './synthetic.ts';

/** What a cache appends for a section, with the number of tokens that had to be encoded. */
function lookUp(cache: SectionCache, section: LongSection): { ids: number[]; encoded: number } {
  const out = new IdBuffer();
  let encoded = 0;
  out.push(-7); // what stands before the section is none of its ids
  cache.appendTo(section, out, () => {
    for (const char of section.text) out.push(char.charCodeAt(0) + (section.first ? 1000 : 0));
    encoded = section.text.length;
  });
  return { ids: [...out.toIds(1)], encoded };
}

describe('the cache of long sections', () => {
  test('gives the same ids the second time, without encoding', () => {
    const cache = new SectionCache();
    const section = { text: 'abc', first: false };
    expect(lookUp(cache, section)).toEqual({ ids: [97, 98, 99], encoded: 3 });
    expect(lookUp(cache, section)).toEqual({ ids: [97, 98, 99], encoded: 0 });
  });

  test.each<[string, LongSection]>([
    ['another text', { text: 'a\ud801', first: false }],
    ['another lone surrogate', { text: 'a\udc00', first: false }],
    ['the replacement character', { text: 'a\ufffd', first: false }],
    ['another place', { text: 'a\ud800', first: true }],
  ])('tells a section from one with %s', (_what, other) => {
    const cache = new SectionCache();
    lookUp(cache, { text: 'a\ud800', first: false });
    expect(lookUp(cache, other)).toEqual(lookUp(new SectionCache(), other));
  });

  test('stays within its bytes, and lets go of what was used least recently', () => {
    const cache = new SectionCache(8000);
    const section = (number: number): LongSection => ({ text: `${number % 10}`.repeat(400), first: false });
    for (let number = 0; number < 10; number++) {
      lookUp(cache, section(number));
      lookUp(cache, section(0));
      expect(cache.bytes).toBeLessThanOrEqual(8000);
    }
    expect([0, 1, 9].map((number) => lookUp(cache, section(number)).encoded)).toEqual([0, 400, 0]);
  });

  test('does not keep what is larger than all of it', () => {
    const cache = new SectionCache(1000);
    expect([lookUp(cache, { text: 'a'.repeat(300), first: false }).encoded, cache.bytes]).toEqual([300, 0]);
  });
});

describe.each([['byte-level', byteLevelJson('GPT-2')], ['SentencePiece-like', metaspaceJson('normalizer')], ['Metaspace', metaspaceJson('first')]])('a %s tokenizer', (_kind, json) => {
  const special = json.added_tokens!.at(1)!.content;
  const lone = '\ud800';
  const document = 'hello the quick ✓ fox\n'.repeat(800);
  const guard = { reveal: (text: string) => text.replaceAll('\ufdd0', special) };
  const parse: EncodeOptions = { special: 'parse' };

  test('gives a conversation that repeats a document the ids that a new tokenizer gives it', () => {
    expect(document.length).toBeGreaterThan(MIN_CACHED_CHARS);
    const calls: [string, EncodeOptions][] = [
      [document, parse], [document, { special: 'plain' }], [special + document, parse], [document + special + document, parse],
      [special + document, { special: 'plain' }], [`${document}\ufdd0${document}${special}?`, { special: 'parse', guard }], [`${document}\ufdd0`, parse],
      [document + lone, parse], [`${document}\ufffd`, parse], [` ${document}`, parse],
    ];
    const tokenizer = createTokenizer(json, {});
    const given = [...calls, ...calls].map(([text, options]) => tokenizer.encode(text, options));
    const wanted = calls.map(([text, options]) => createTokenizer(json, {}).encode(text, options));
    expect(given).toEqual([...wanted, ...wanted]);
  });
});
