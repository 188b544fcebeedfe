import { afterEach, describe, expect, it } from 'vitest';
import { Client } from '../../loadtest/client.ts';
import { assemble, insertAll, NEEDLES, partsOf, planNeedles, snapToLines, writeNeedleDocument, type TokenizedBook } from '../../loadtest/needle-documents.ts';
import { IN_PROMPT_LENGTH, parseNeedleOptions } from '../../loadtest/needle-options.ts';
import { answersInPrompt, buildDocument, findsNeedle, tokenizeBook, tokensOf, type Target } from '../../loadtest/needle-tests.ts';
import { readBook } from '../../loadtest/prompts.ts';
import { answerJson, scriptedServer, type Answer } from './scripted-server.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** A book of lines of `lineTokens` tokens; its ids are 1000, 1001, ... */
function bookOf(tokens: number, lineTokens: number): TokenizedBook {
  const ids = Array.from({ length: tokens }, (_, i) => 1000 + i);
  return { ids, endsLine: ids.map((_, i) => i % lineTokens === lineTokens - 1) };
}

/** Needle i is two tokens: i and 100 + i. */
const PARTS = { opening: [500, 501], closing: [502], sentences: Array.from({ length: NEEDLES }, (_, i) => [i, 100 + i]) };

describe('planNeedles', () => {
  it('gives 16 needles with distinct keys and seven digits, one of them asked, in 16 ascending places', () => {
    for (let seed = 0; seed < 50; seed++) {
      const { needles, asked, places } = planNeedles(seed);
      expect(new Set(needles.map(({ key }) => key)).size).toBe(NEEDLES);
      expect(needles.every(({ value }) => /^[1-9]\d{6}$/.test(value))).toBe(true);
      expect(needles).toContain(asked);
      expect(places).toEqual([...places].sort((a, b) => a - b));
    }
    expect(planNeedles(3)).toEqual(planNeedles(3));
    expect(planNeedles(3)).not.toEqual(planNeedles(4));
  });

  it('asks for the number of the asked needle, in the words of its sentence', () => {
    const plan = planNeedles(5);
    const { closing, sentences } = partsOf(plan);
    expect(closing).toContain(`number for ${plan.asked.key} mentioned`);
    expect(sentences).toContain(` One of the special magic numbers for ${plan.asked.key} is: ${plan.asked.value}.`);
  });
});

describe('assemble', () => {
  it('gives prompts of exactly the wanted length: book in order, every needle whole and at the beginning of a line', () => {
    for (let seed = 0; seed < 30; seed++) {
      const ids = assemble(bookOf(5000, 7), planNeedles(seed), PARTS, 1024 + seed);
      expect(ids).toHaveLength(1024 + seed);
      expect(ids.slice(0, 2)).toEqual(PARTS.opening);
      expect(ids.at(-1)).toBe(502);
      const text = ids.filter((id) => id >= 1000);
      expect(text.every((id, i) => i === 0 || id === (text[i - 1]! === 5999 ? 1000 : text[i - 1]! + 1))).toBe(true);
      for (let needle = 0; needle < NEEDLES; needle++) {
        const at = ids.indexOf(needle);
        expect(ids[at + 1]).toBe(100 + needle);
        expect(ids[at + 2] === 502 || (ids[at - 1]! - 1000) % 7 === 6).toBe(true);
      }
    }
  });

  it('refuses a length that the needles alone exceed, with both numbers', () => {
    expect(() => assemble(bookOf(100, 7), planNeedles(1), PARTS, 20)).toThrow(/20 tokens .* take 35/);
  });
});

describe('snapToLines and insertAll', () => {
  it('move places behind ends of lines, each to one of its own, and to the end when lines run out', () => {
    expect(snapToLines([0, 1, 3, 9, 9], 10, (i) => i % 3 === 2)).toEqual([3, 6, 9, 10, 10]);
  });

  it('change nothing but the insertions', () => {
    expect(insertAll([1, 2, 3], [1, 3, 3], [[10], [20, 21], [30]])).toEqual([1, 10, 2, 3, 20, 21, 30]);
  });
});

describe('writeNeedleDocument', () => {
  it('holds 16 distinct needles at paragraph ends and asks for one of them', () => {
    for (let seed = 0; seed < 20; seed++) {
      const { content, value } = writeNeedleDocument(readBook(), seed, 60_000);
      const needles = [...content.matchAll(/ One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d{7})\./g)];
      expect(new Set(needles.map((needle) => needle[1])).size).toBe(NEEDLES);
      const asked = /number for ([a-z]+-[a-z]+) mentioned/.exec(content)![1];
      expect(needles.find((needle) => needle[1] === asked)![2]).toBe(value);
      for (const needle of needles) expect(content.slice(needle.index + needle[0].length)).toMatch(/^( One of the special|\n\n)/);
    }
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

/** A server whose tokens are five characters each, or a newline. */
async function targetOf(completions: Answer): Promise<Target> {
  const server = await scriptedServer({
    '/tokenize': (body, response) => {
      const token_strs = (body['prompt'] as string).match(/[^\n]{1,5}|\n/g) ?? [];
      answerJson(response, { tokens: token_strs.map((text) => text.charCodeAt(0)), token_strs: body['return_token_strs'] === true ? token_strs : null });
    },
    '/v1/completions': completions,
  });
  const client = new Client(server.baseUrl);
  closing.push(() => client.close(), server.close);
  return { client, model: 'tiny', book: await tokenizeBook(client, readBook().slice(0, 50_000)) };
}

describe('needle tests', () => {
  const document = { promptIds: [1, 1, 1], value: '7654321' };
  const answer = 'It is 7654321.';
  const characters = Array.from(answer);

  it('build prompts of exactly the wanted length', async () => {
    const target = await targetOf(() => undefined);
    expect(target.book.endsLine.filter(Boolean).length).toBeGreaterThan(100);
    for (const tokens of [1024, 4096, 16_384]) expect((await buildDocument(target, tokens, tokens)).promptIds).toHaveLength(tokens);
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
