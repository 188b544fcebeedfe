import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Choice, numChars, type ChoiceOptions } from '../../server/generate/choice.ts';
import { chatLogprobs, completionLogprobs, tokenName } from '../../server/generate/logprobs.ts';
import { loadTokenizer } from '../../tokenizer/tokenizer.ts';
import { plainMetrics } from './scripted-engine.ts';
import { folder } from './testbed.ts';

const tokenizer = await loadTokenizer(folder);
const idsOf = (text: string): number[] => Array.from(tokenizer.encode(text, { special: 'plain' }));

const plain: ChoiceOptions = { index: 0, tokenizer, stopStrings: [], includeStop: false, ownStopTokenIds: [], logprobs: false, tokenIds: false };

function accept(choice: Choice, tokens: readonly number[]): void {
  const logprobs = tokens.map((token) => ({ token, logprob: -token / 1000, top: [] }));
  choice.accept({ type: 'tokens', id: 1, choice: 0, tokens, logprobs });
}

function finish(choice: Choice, stopToken: number | null = null): void {
  choice.finish({ type: 'finished', id: 1, choice: 0, reason: stopToken === null ? 'length' : 'stop', stopToken, metrics: plainMetrics });
}

/** Everything that is taken when tokens come one by one. */
function takeEach(options: ChoiceOptions, tokens: readonly number[], stopToken: number | null = null) {
  const choice = new Choice(options);
  const deltas = tokens.map((token) => {
    accept(choice, [token]);
    return choice.take();
  });
  finish(choice, stopToken);
  return { choice, deltas: [...deltas, choice.take()] };
}

const joined = (deltas: readonly { text: string }[]): string => deltas.map(({ text }) => text).join('');

test('no piece ever holds half a character, and the pieces make the text', () => {
  fc.assert(fc.property(fc.string({ unit: 'grapheme', maxLength: 40 }), (text) => {
    const { deltas } = takeEach(plain, idsOf(text));
    // What half a character is decoded to; a text may hold it too.
    expect(text.includes('\ufffd') || deltas.every((delta) => !delta.text.includes('\ufffd'))).toBe(true);
    expect(joined(deltas)).toBe(text);
  }), { examples: [['\ufffd'], ['a \ufffd\u{1f600}b']] });
});

test('a stop string that lies across token borders ends the text before it', () => {
  const { choice, deltas } = takeEach({ ...plain, stopStrings: ['never', ' brown fox ju'] }, idsOf('The quick brown fox jumps over the dog'));
  expect(joined(deltas)).toBe('The quick');
  expect(choice.ending).toMatchObject({ reason: 'stop', stopReason: ' brown fox ju' });
});

test('what was the start of a stop string and came to nothing is given out', () => {
  const { choice, deltas } = takeEach({ ...plain, stopStrings: ['dogs'] }, idsOf('over the dog'));
  expect(joined(deltas)).toBe('over the dog');
  expect(choice.ending).toMatchObject({ reason: 'length', stopReason: null });
});

test('include_stop_str_in_output keeps the stop string and nothing after it', () => {
  const { deltas } = takeEach({ ...plain, stopStrings: ['fox'], includeStop: true }, idsOf('The quick brown fox jumps'));
  expect(joined(deltas)).toBe('The quick brown fox');
});

test('the text does not depend on how tokens are cut into events', () => {
  const stopStrings = ['fox j', 'lazy'];
  fc.assert(fc.property(fc.array(fc.constantFrom('fox ', 'jump', 'la', 'zy', 'é', '🦊', ' '), { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }), (words, cuts) => {
    const tokens = idsOf(words.join(''));
    const whole = new Choice({ ...plain, stopStrings, logprobs: true, tokenIds: true });
    for (let start = 0, i = 0; start < tokens.length; start += cuts[i++ % cuts.length]!) accept(whole, tokens.slice(start, start + cuts[i % cuts.length]!));
    finish(whole);
    const together = whole.take();
    const { deltas } = takeEach({ ...plain, stopStrings, logprobs: true, tokenIds: true }, tokens);
    expect(joined(deltas)).toBe(together.text);
    expect(deltas.flatMap(({ logprobs }) => logprobs)).toEqual(together.logprobs);
    expect(deltas.flatMap(({ tokenIds }) => tokenIds)).toEqual(together.tokenIds);
  }));
});

test('log-probabilities come with the text of their token, and those past a stop string never', () => {
  const tokens = idsOf('The quick brown fox jumps');
  const { deltas } = takeEach({ ...plain, stopStrings: [' brown fox'], logprobs: true }, tokens);
  const placed = deltas.flatMap(({ logprobs }) => logprobs);
  const text = placed.map(({ token }) => tokenizer.decode([token], { skipSpecial: true })).join('');
  expect(text).toBe('The quick');
  expect(placed[0]).toMatchObject({ offset: 0, token: tokens[0], logprob: -tokens[0]! / 1000 });
});

test('offsets count characters, not UTF-16 units', () => {
  const { deltas } = takeEach({ ...plain, logprobs: true }, idsOf('🦊🦊 a'));
  const last = deltas.flatMap(({ logprobs }) => logprobs).at(-1)!;
  const lastText = tokenizer.decode([last.token], { skipSpecial: true });
  expect(last.offset).toBe(numChars('🦊🦊 a') - numChars(lastText));
  expect(numChars('🦊🦊 a')).toBe(4);
});

test('an end-of-text token is in token_ids and not in the text; a stop token of the request is the stop reason', () => {
  const eos = tokenizer.eosId!;
  const { choice, deltas } = takeEach({ ...plain, tokenIds: true }, idsOf('Hi'), eos);
  expect(deltas.flatMap(({ tokenIds }) => tokenIds)).toEqual([...idsOf('Hi'), eos]);
  expect(joined(deltas)).toBe('Hi');
  expect(choice.ending).toMatchObject({ reason: 'stop', stopReason: null });
  const own = idsOf(' the')[0]!;
  const ended = takeEach({ ...plain, ownStopTokenIds: [own] }, idsOf('Hi'), own);
  expect(ended.choice.ending).toMatchObject({ stopReason: own });
  expect(joined(ended.deltas)).toBe('Hi');
  expect(joined(takeEach({ ...plain, ownStopTokenIds: [own], includeStop: true }, idsOf('Hi'), own).deltas)).toBe('Hi the');
});

test('a token that is less than a character is named by its bytes', () => {
  expect(tokenName(Uint8Array.of(0xe2, 0x80))).toBe('bytes:\\xe2\\x80');
  expect(tokenName(Buffer.from(' é'))).toBe(' é');
});

test('log-probabilities have OpenAI\'s two shapes, and no -Infinity', () => {
  const [token, other] = idsOf(' the').concat(idsOf(' a')) as [number, number];
  const placed = [{ token, offset: 3, logprob: -0.5, top: [{ token, logprob: -0.5 }, { token: other, logprob: -Infinity }] }];
  expect(chatLogprobs(tokenizer, placed)).toEqual({
    content: [{
      token: ' the', logprob: -0.5, bytes: [32, 116, 104, 101],
      top_logprobs: [{ token: ' the', logprob: -0.5, bytes: [32, 116, 104, 101] }, { token: ' a', logprob: -9999, bytes: [32, 97] }],
    }],
    refusal: null,
  });
  expect(completionLogprobs(tokenizer, [{ token: other, offset: 0, logprob: null, top: [] }, ...placed])).toEqual({
    text_offset: [0, 3], tokens: [' a', ' the'], token_logprobs: [null, -0.5], top_logprobs: [null, { ' the': -0.5, ' a': -9999 }],
  });
});
