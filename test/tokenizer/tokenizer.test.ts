import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { afterAll, describe, expect, test } from 'vitest';
import { ModelFileError, type TokenizerConfig, type TokenizerJson } from '../../tokenizer/model-files.ts';
import { createTokenizer, loadTokenizer } from '../../tokenizer/tokenizer.ts';
import { modelFolder } from './model-folder.ts';
import { ODD_TEXTS, oddText } from './odd-texts.ts';
import { byteLevelJson, metaspaceJson } from './synthetic.ts';

const folders: string[] = [];
afterAll(() => Promise.all(folders.map((dir) => rm(dir, { recursive: true }))));

async function folder(files: Record<string, unknown>): Promise<string> {
  const dir = await modelFolder(files);
  folders.push(dir);
  return dir;
}

describe('begin and end of text', () => {
  const template = (id: string) => ({ type: 'TemplateProcessing', single: [{ SpecialToken: { id, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }] });
  const load = (config: TokenizerConfig, json: Partial<TokenizerJson> = {}) => createTokenizer({ ...byteLevelJson('GPT-2'), ...json }, config);

  test('a model that says nothing adds nothing', () => {
    expect(load({})).toMatchObject({ bosId: null, addBos: false, eosId: null });
  });

  test('add_bos_token decides where it is given', () => {
    expect(load({ bos_token: '<|endoftext|>', add_bos_token: true }).addBos).toBe(true);
    expect(load({ bos_token: '<|endoftext|>', add_bos_token: false }, { post_processor: template('<|endoftext|>') }).addBos).toBe(false);
  });

  test('a bos_token alone is not added', () => {
    expect(load({ bos_token: '<|endoftext|>' })).toMatchObject({ addBos: false, bosId: 406 });
  });

  test("the post-processor of Llama 3 adds it, within a sequence", () => {
    const postProcessor = { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template('<|endoftext|>')] };
    expect(load({}, { post_processor: postProcessor })).toMatchObject({ addBos: true, bosId: 406 });
  });

  test('a template that ends with a special token adds nothing in front', () => {
    const single = [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '<|endoftext|>', type_id: 0 } }];
    expect(load({}, { post_processor: { type: 'TemplateProcessing', single } }).addBos).toBe(false);
  });

  test('a special token may be given as an object', () => {
    expect(load({ eos_token: { content: '<|im_end|>' } }).eosId).toBe(408);
  });
});

describe.each(['normalizer', 'first'] as const)('a SentencePiece-like tokenizer with its prefix from %s', (prefix) => {
  const json = metaspaceJson(prefix);
  const tokenizer = createTokenizer(json, { bos_token: '<s>' });
  const library = new Library(json, {});

  test('encodes as the library does', () => {
    const around = ['<s>hello</s> the', 'hello<s> the', '<s><s>'];
    for (const text of [...ODD_TEXTS, ...around]) expect([text, ...tokenizer.encode(text, { special: 'parse' })]).toEqual([text, ...library.encode(text, { add_special_tokens: false }).ids]);
    fc.assert(fc.property(oddText, (text) => {
      expect([...tokenizer.encode(text, { special: 'parse' })]).toEqual(library.encode(text, { add_special_tokens: false }).ids);
    }), { numRuns: 200 });
  });

  test('decodes to the text that was encoded, without the space that encoding puts first', () => {
    // Metaspace puts no second space before a text that has one, so that space is lost.
    for (const text of ['hello the', 'hé 日本 😀\n', ...(prefix === 'first' ? [] : [' hello'])]) {
      expect(tokenizer.decode(tokenizer.encode(text, { special: 'plain' }), { skipSpecial: true })).toBe(text);
    }
  });

  test('gives a byte token its byte and ▁ a space', () => {
    expect([...tokenizer.tokenBytes(tokenizer.idOf('<0x0A>')!)]).toEqual([10]);
    expect(Buffer.from(tokenizer.tokenBytes(tokenizer.idOf('▁hello')!)).toString()).toBe(' hello');
    expect(Buffer.from(tokenizer.tokenBytes(tokenizer.idOf('<s>')!)).toString()).toBe('<s>');
  });

  test('adds the begin-of-text token of its post-processor', () => {
    expect(tokenizer).toMatchObject({ addBos: true, bosId: 1 });
  });

  test('a special token in plain text is spelled out', () => {
    expect([...tokenizer.encode('a</s>', { special: 'plain' })]).not.toContain(2);
    expect([...tokenizer.encode('a</s>', { special: 'parse' })]).toContain(2);
  });
});

describe('ids and texts', () => {
  const tokenizer = createTokenizer(byteLevelJson('GPT-2'), {});

  test('special tokens are skipped on request', () => {
    const ids = tokenizer.encode('a<|im_end|>b<think>', { special: 'parse' });
    expect(tokenizer.decode(ids, { skipSpecial: true })).toBe('ab<think>');
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe('a<|im_end|>b<think>');
  });

  test('an id that no token has stands for nothing', () => {
    expect(tokenizer.tokenBytes(tokenizer.vocab + 5)).toHaveLength(0);
    expect(tokenizer.tokenText(tokenizer.vocab + 5)).toBe('');
    expect(tokenizer.decode([tokenizer.vocab + 5], { skipSpecial: false })).toBe('');
  });

  test('the vocabulary spells a token its own way', () => {
    const id = tokenizer.idOf('Ġthe')!;
    expect(tokenizer.tokenText(id)).toBe('Ġthe');
    expect(Buffer.from(tokenizer.tokenBytes(id)).toString()).toBe(' the');
  });

  test('bytes that are no UTF-8 decode to the replacement character, and a byte order mark stays', () => {
    expect(tokenizer.decode([0xe6], { skipSpecial: false })).toHaveLength(1);
    expect(tokenizer.decode(tokenizer.encode('\ufeffa', { special: 'plain' }), { skipSpecial: false })).toBe('\ufeffa');
  });
});

describe('broken files', () => {
  const json = byteLevelJson('GPT-2');
  const { model } = json;

  test.each<[string, unknown, RegExp]>([
    ['is no JSON', '{"model": ', /tokenizer\.json is not valid JSON/],
    ['holds a list', [], /tokenizer\.json is malformed: it must hold an object/],
    ['has no model', { ...json, model: undefined }, /"model" must be an object/],
    ['has a vocabulary of texts', { ...json, model: { ...model, vocab: { a: 'b' } } }, /"model.vocab" must give each token its id/],
    ['has a merge of three', { ...json, model: { ...model, merges: ['a b c'] } }, /"model.merges" must be a list of pairs/],
    ['has an added token without an id', { ...json, added_tokens: [{ content: 'x' }] }, /"added_tokens" must be/],
    ['has a nameless pre-tokenizer', { ...json, pre_tokenizer: {} }, /"pre_tokenizer" must be an object with a "type"/],
    ['merges unknown tokens', { ...json, model: { ...model, merges: [model.merges![0]!, 'qq zz'] } }, /cannot be used: merge 1 names the token "qq"/],
    ['has a model that nobody knows', { ...json, model: { type: 'Alien', vocab: {} } }, /"model.type" must be BPE, Unigram or WordPiece/],
  ])('a tokenizer.json that %s is refused by name', async (_what, content, message) => {
    const dir = await folder({ 'tokenizer.json': content });
    const refused = loadTokenizer(dir);
    await expect(refused).rejects.toThrow(message);
    await expect(refused).rejects.toMatchObject({ name: 'ModelFileError', file: join(dir, 'tokenizer.json') });
  });

  test('a folder without tokenizer.json is refused', async () => {
    await expect(loadTokenizer(await folder({}))).rejects.toThrow(/tokenizer\.json is missing/);
  });

  test('a tokenizer_config.json with a number for a token is refused', async () => {
    const dir = await folder({ 'tokenizer.json': json, 'tokenizer_config.json': { bos_token: 5 } });
    await expect(loadTokenizer(dir)).rejects.toThrow(ModelFileError);
    await expect(loadTokenizer(dir)).rejects.toThrow(/tokenizer_config\.json is malformed: "bos_token"/);
  });

  test('a folder without tokenizer_config.json is served', async () => {
    expect((await loadTokenizer(await folder({ 'tokenizer.json': json }))).bosId).toBeNull();
  });
});
