import { afterEach, describe, expect, it } from 'vitest';
import { Client } from '../../loadtest/client.ts';
import { insertAtParagraphEnds, NEEDLES, writeNeedleDocument } from '../../loadtest/needle-documents.ts';
import { IN_PROMPT_LENGTH, parseNeedleOptions } from '../../loadtest/needle-options.ts';
import { answersInPrompt, findsNeedle, fitDocument, tokensOf, type Target } from '../../loadtest/needle-tests.ts';
import { readBook } from '../../loadtest/prompts.ts';
import { answerJson, scriptedServer, type Answer } from './scripted-server.ts';

const NEEDLE = /One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d{7})\./g;
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

describe('writeNeedleDocument', () => {
  const book = readBook();

  it('holds 16 distinct needles at paragraph ends and asks for one of them', () => {
    for (let seed = 0; seed < 20; seed++) {
      const { content, value } = writeNeedleDocument(book, seed, 60_000);
      const needles = [...content.matchAll(NEEDLE)];
      expect(needles).toHaveLength(NEEDLES);
      expect(new Set(needles.map((needle) => needle[1])).size).toBe(NEEDLES);
      const asked = /number for ([a-z]+-[a-z]+) mentioned/.exec(content)![1];
      expect(needles.find((needle) => needle[1] === asked)![2]).toBe(value);
      for (const needle of needles) expect(content.slice(needle.index + needle[0].length)).toMatch(/^( One of the special|\n\n)/);
    }
  });

  it('is the same for the same seed, and its needles do not depend on its length', () => {
    expect(writeNeedleDocument(book, 3, 9000)).toEqual(writeNeedleDocument(book, 3, 9000));
    const needlesOf = (chars: number): string[] => [...writeNeedleDocument(book, 3, chars).content.matchAll(NEEDLE)].map((needle) => needle[0]);
    expect(needlesOf(9000)).toEqual(needlesOf(200_000));
  });
});

describe('insertAtParagraphEnds', () => {
  it('changes nothing but the insertions', () => {
    expect(insertAtParagraphEnds('one\n\ntwo\n\nthree', [0, 1, 6, 12], ['A.', 'B.', 'C.', 'D.'])).toBe('one A. B.\n\ntwo C.\n\nthree D.');
  });
});

describe('needle options', () => {
  it('read lengths in K and give the documents of the published table', () => {
    const options = parseNeedleOptions(['--lengths', '4K,125K', '--rows', 'dense'], ['dense'])!;
    expect(options.lengths.map((length) => [length, options.documentsAt(length)])).toEqual([[4096, 40], [128_000, 8]]);
    expect(IN_PROMPT_LENGTH).toBe(16_384);
    expect(() => parseNeedleOptions(['--rows', 'sparse'], ['dense'])).toThrow('sparse');
  });
});

/** A server with one token per five characters of the template, and one per character of an answer. */
async function targetOf(completions: Answer): Promise<Target> {
  const server = await scriptedServer({
    '/tokenize': (body, response) => {
      const { content } = (body['messages'] as { content: string }[])[0]!;
      answerJson(response, { tokens: Array.from({ length: Math.ceil(content.length / 5) + 9 }, () => 1) });
    },
    '/v1/completions': completions,
  });
  const client = new Client(server.baseUrl);
  closing.push(() => client.close(), server.close);
  return { client, model: 'tiny', book: readBook() };
}

describe('needle tests', () => {
  const document = { promptIds: [1, 1, 1], value: '7654321' };
  const answer = 'It is 7654321.';
  const characters = Array.from(answer);

  it('fit a document to within 64 tokens below the wanted length', async () => {
    const target = await targetOf(() => undefined);
    for (const tokens of [1024, 4096, 16_384]) {
      const { promptIds } = await fitDocument(target, tokens, tokens);
      expect(tokens - promptIds.length).toBeGreaterThanOrEqual(0);
      expect(tokens - promptIds.length).toBeLessThanOrEqual(64);
    }
  });

  it('refuse a length that the needles alone exceed', async () => {
    const target = await targetOf(() => undefined);
    await expect(fitDocument(target, 1, 100)).rejects.toThrow('too short');
  });

  it('ask greedily with the given attention and look for the seven digits', async () => {
    let seen: unknown;
    const target = await targetOf((body, response) => {
      seen = body;
      answerJson(response, { choices: [{ text: answer, token_ids: [4, 5] }] });
    });
    expect(await findsNeedle(target, document, { attention: 'lserve' })).toEqual({ found: true, answer, answerIds: [4, 5] });
    expect(seen).toMatchObject({ prompt: [1, 1, 1], temperature: 0, long_context: { attention: 'lserve' } });
    expect((await findsNeedle(target, { ...document, value: '1111111' }, {})).found).toBe(false);
  });

  /** Echo where the token at `wrongAt` (counted in the answer) is not the most likely one. */
  async function echoTarget(wrongAt: number | null): Promise<Target> {
    return targetOf((body, response) => {
      const tokens = ['<doc>', '<doc>', '<doc>', ...characters, '!'];
      expect((body['prompt'] as number[]).length).toBe(tokens.length - 1);
      const token_logprobs = tokens.map((_, i) => (i === 0 ? null : -1));
      const top_logprobs = tokens.map((token, i) => (i === 0 ? null : i - 3 === wrongAt ? { z: -0.5 } : { [token]: -1 }));
      answerJson(response, { choices: [{ text: '', logprobs: { tokens, token_logprobs, top_logprobs } }] });
    });
  }

  it('accept a number whose every token is the most likely one, whatever the words around it are', async () => {
    const given = { found: true, answer, answerIds: characters.map(() => 2) };
    expect(await answersInPrompt(await echoTarget(null), document, given, {})).toBe(true);
    expect(await answersInPrompt(await echoTarget(answer.indexOf('7') - 1), document, given, {})).toBe(true);
    for (const digit of [0, 3, 6]) expect(await answersInPrompt(await echoTarget(answer.indexOf('7') + digit), document, given, {})).toBe(false);
  });

  it('find the tokens of a number also where tokens hold several digits', () => {
    expect(tokensOf('7654321', ['x', 'is', ' 7', '65', '4321.', '!'], 1, 6)).toEqual([2, 3, 4]);
    expect(() => tokensOf('7654321', ['a', 'b'], 0, 2)).toThrow('7654321');
  });
});
