// Prompts through a real server without a model: exact lengths, the chat's frame, one prefill for all questions.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildPrompts, readChatFrame, tokenize, type Source } from '../../../loadtest/eval/build.ts';
import { FAMILIES } from '../../../loadtest/eval/documents.ts';
import { askDocument, scoreText, type Asked } from '../../../loadtest/eval/run.ts';
import { wordsOf } from '../../../loadtest/eval/words.ts';
import { Client } from '../../../loadtest/client.ts';
import { tokenizeBook } from '../../../loadtest/needle-tests.ts';
import { readBook } from '../../../loadtest/prompts.ts';
import { startServer, type ServerProcess } from '../../../loadtest/server-process.ts';
import { answerJson, scriptedServer } from '../scripted-server.ts';

let server: ServerProcess;
let client: Client;
let source: Source;

beforeAll(async () => {
  server = await startServer(['--engine', 'fake']);
  client = new Client(server.baseUrl);
  source = { client, frame: await readChatFrame(client), book: await tokenizeBook(client, readBook()), vocabulary: wordsOf(readBook()) };
}, 60_000);
afterAll(async () => {
  await client.close();
  await server.stop();
});

const textOf = async (ids: readonly number[]): Promise<string> => ((await client.post('/detokenize', { tokens: ids })) as { prompt: string }).prompt;

describe('prompts', () => {
  it.each(FAMILIES.map((family) => [family] as const))('of %j have the wanted length, share their document, and end with their question in the chat format', async (family) => {
    for (const tokens of [2048, 5000]) {
      const prompts = await buildPrompts(source, family, 7, tokens);
      const longest = Math.max(...prompts.map(({ ids }) => ids.length));
      if (family[0] === 'common-words') expect(longest / tokens).toBeGreaterThan(0.97);
      else expect(longest).toBe(tokens);
      expect(longest).toBeLessThanOrEqual(tokens);
      for (const { ids, question, answerIds } of prompts) {
        expect(ids.slice(0, 1500)).toEqual(prompts[0]!.ids.slice(0, 1500));
        const text = await textOf(ids);
        expect(text.startsWith(source.frame.before)).toBe(true);
        expect(text.endsWith(`\n\n${question.text}${source.frame.after}`)).toBe(true);
        for (const value of question.values) expect(text).toContain(value);
        expect(await textOf(answerIds)).toBe(question.answer);
      }
    }
  });

  it('are those of the shared document, whichever of its tasks is asked', async () => {
    const all = await buildPrompts(source, FAMILIES[1]!, 7, 2048);
    for (const task of FAMILIES[1]!) expect(await buildPrompts(source, [task], 7, 2048)).toEqual(all);
  });

  it('refuse a length that the sentences alone exceed', async () => {
    await expect(buildPrompts(source, FAMILIES[1]!, 1, 300)).rejects.toThrow(RangeError);
  });
});

describe('asking', () => {
  const asked = (): Asked => ({ client, place: { model: 'longspan-16m', precision: 'int8', row: 'dense', tokens: 2048, seed: 0 }, longContext: { attention: 'lserve', token_budget: 512 } });

  it('prefills a document once', async () => {
    const prompts = await buildPrompts(source, FAMILIES[1]!, 9, 2048);
    const metric = async (name: string): Promise<number> => Number(new RegExp(`^${name}\\{[^}]*\\} (\\d+)`, 'm').exec((await client.get('/metrics')).text)![1]);
    const [prompted, cached] = [await metric('vllm:prompt_tokens_total'), await metric('vllm:prompt_tokens_cached_total')];
    const records = await askDocument(asked(), prompts, ['answer', 'inside']);
    expect(records.map(({ task, question, mode }) => `${task} ${question} ${mode}`)).toEqual([
      ...[0, 1, 2, 3].flatMap((question) => [`multi-key ${question} answer`, `multi-key ${question} inside`]),
      'multi-value 0 answer', 'multi-value 0 inside', 'multi-query 0 answer', 'multi-query 0 inside',
    ]);
    const computed = await metric('vllm:prompt_tokens_total') - prompted - (await metric('vllm:prompt_tokens_cached_total') - cached);
    // 2048 tokens once, and for each of the others its question, its answer and less than two spans of 128.
    expect(computed).toBeLessThan(2048 + 11 * (150 + 256));
  });

  it('scores the second half of a text', async () => {
    const ids = (await tokenize(client, readBook().slice(0, 8000))).slice(0, 1001);
    const { nll, of } = await scoreText(asked(), ids);
    expect(of).toBe(501);
    expect(nll).toBeGreaterThan(0);
  });

  it('counts what a model says, and what it would have gone on with', async () => {
    const scripted = await scriptedServer({
      '/v1/completions': (body, response) => {
        if (body['echo'] !== true) answerJson(response, { choices: [{ text: 'They are 11 and 33.' }] });
        else {
          expect(body).toMatchObject({ prompt: [1, 2, 3, 4, 5, 6], logprob_start_len: 2, max_tokens: 0 });
          const top_logprobs = [null, { '11': -1 }, { ',': -1, ' and': -0.1 }, { '33': -0.2, '22': -3 }];
          answerJson(response, { choices: [{ text: '', logprobs: { tokens: ['are ', '11', ',', '22'], token_logprobs: [-1, -1, -1, -3], top_logprobs } }] });
        }
      },
    });
    const own = new Client(scripted.baseUrl);
    const question = { task: 'multi-value' as const, text: '?', values: ['11', '22'], answer: 'are 11,22' };
    const records = await askDocument({ ...asked(), client: own }, [{ question, ids: [1, 2], answerIds: [3, 4, 5, 6] }], ['answer', 'inside']);
    expect(records.map(({ mode, found, of, answer }) => ({ mode, found, of, answer }))).toEqual([
      { mode: 'answer', found: 1, of: 2, answer: 'They are 11 and 33.' },
      { mode: 'inside', found: 1, of: 2, answer: 'are 11 and33' },
    ]);
    await own.close();
    scripted.close();
  });
});
