// Workloads through a real server without a model, and the figures that come of what answers say.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '../../../loadtest/client.ts';
import { readChatFrame, type Source } from '../../../loadtest/eval/build.ts';
import { tokenizeBook } from '../../../loadtest/needle-tests.ts';
import { readBook } from '../../../loadtest/prompts.ts';
import { startServer, type ServerProcess } from '../../../loadtest/server-process.ts';
import { figuresOf, tableOf } from '../../../loadtest/speculation/figures.ts';
import { measureBatch, prefill, ROWS, summed, type Measured } from '../../../loadtest/speculation/measure.ts';
import { buildWorkloads, quotedShare, WORKLOADS } from '../../../loadtest/speculation/workloads.ts';

let server: ServerProcess;
let client: Client;
let source: Source;

beforeAll(async () => {
  server = await startServer(['--engine', 'fake']);
  client = new Client(server.baseUrl);
  source = { client, frame: await readChatFrame(client), book: await tokenizeBook(client, readBook()), vocabulary: [] };
}, 60_000);
afterAll(async () => {
  await client.close();
  await server.stop();
});

const textOf = async (tokens: readonly number[]): Promise<string> => ((await client.post('/detokenize', { tokens })) as { prompt: string }).prompt;

describe('workloads', () => {
  it('share one document, and ask four different things of each kind', async () => {
    const { documentIds, documentText, requests } = await buildWorkloads(source, 8192, 4, 3);
    for (const workload of WORKLOADS) {
      expect(requests[workload]).toHaveLength(4);
      for (const { ids } of requests[workload]) {
        expect(ids.length).toBeLessThanOrEqual(8192);
        expect(ids.slice(0, 7000)).toEqual(documentIds.slice(0, 7000));
      }
    }
    for (const { question, ids } of requests.quote) {
      const head = /begins with "([^]+)"\.$/.exec(question)![1]!;
      expect(documentText).toContain(head);
      expect(head).not.toContain('magic number');
      expect(await textOf(ids.slice(-200))).toContain(question);
    }
    expect(new Set(requests.continue.map(({ ids }) => ids.length)).size).toBe(4);
    expect(new Set(requests.needles.map(({ question }) => question)).size).toBe(2);
  });

  it('are prefilled once for all rows that read densely, and measured by what answers say', async () => {
    const workloads = await buildWorkloads(source, 4096, 2, 5);
    const subject = { client, model: 'longspan-16m', workloads, force: true };
    await prefill(subject, 'dense');
    const before = await cachedTokens();
    const measured = await measureBatch(subject, { row: 'ngram', requests: workloads.requests.quote, temperature: 0, maxTokens: 12, seed: 0 });
    expect(await cachedTokens() - before).toBeGreaterThan(2 * 3500);
    expect(measured).toMatchObject({ generated: 24 });
    expect(measured.texts).toHaveLength(2);
    expect(measured.passes).toBeGreaterThan(0);
    expect(measured.msPerToken).toBeGreaterThan(0);
  });

  const cachedTokens = async (): Promise<number> => Number(/^vllm:prompt_tokens_cached_total\{[^}]*\} (\d+)/m.exec((await client.get('/metrics')).text)![1]);

  it('are asked of every kind of drafter in terms that the server takes', async () => {
    const workloads = await buildWorkloads(source, 4096, 1, 5);
    for (const row of Object.keys(ROWS).filter((one) => one !== 'triforce-model')) {
      const { generated } = await measureBatch({ client, model: 'longspan-16m', workloads, force: true }, { row, requests: workloads.requests.continue, temperature: 0.7, maxTokens: 4, seed: 0 });
      expect(generated, row).toBe(4);
    }
  });
});

it('of an answer counts as quoted what stands in the document, eight tokens or more in a row', () => {
  const document = Array.from({ length: 100 }, (_, i) => i);
  expect(quotedShare(document.slice(20, 40), document)).toBe(1);
  expect(quotedShare([...document.slice(20, 27), 500], document)).toBe(0);
  expect(quotedShare([500, ...document.slice(20, 28), 501, ...document.slice(50, 57), 502, 503], document)).toBeCloseTo(8 / 19);
  expect(quotedShare([], document)).toBe(0);
});

describe('figures', () => {
  const answer = (decodeMs: number, generated: number, speculation: object, drafted = 0, accepted = 0): Parameters<typeof summed>[0][number] => ({
    choices: [{ text: 'same' }],
    metrics: { decode_ms: decodeMs, generated_tokens: generated, drafted_tokens: drafted, accepted_tokens: accepted, speculation: { speculation: 'ngram', ...speculation } },
  });

  it('add up over a batch', () => {
    const level = { level: 'ngram', drafted_tokens: 8, accepted_tokens: 6 };
    const both = summed([answer(100, 11, { verified_passes: 2, plain_passes: 3, levels: [level], off_reason: null }, 8, 6), answer(300, 11, { verified_passes: 1, plain_passes: 4, levels: [level], off_reason: 'slow' }, 8, 6)]);
    expect(both).toEqual({
      msPerToken: 20, generated: 22, passes: 10, drafted: 16, accepted: 12, levels: [{ level: 'ngram', drafted_tokens: 16, accepted_tokens: 12 }], offReasons: ['slow'], texts: ['same', 'same'],
    });
    expect(summed([answer(100, 11, {})]).passes).toBe(10);
  });

  it('compare each round with dense decoding in the same round', () => {
    const one = (msPerToken: number, over: Partial<Measured> = {}): Measured =>
      ({ msPerToken, generated: 21, passes: 20, drafted: 0, accepted: 0, levels: [], offReasons: [], texts: ['a'], ...over });
    const figures = figuresOf({ tokens: 65_536, batch: 1, temperature: 0, workload: 'quote' }, {
      dense: [one(50), one(80), one(50)],
      ngram: [one(20, { passes: 5, drafted: 30, accepted: 15 }), one(20, { passes: 5, drafted: 30, accepted: 15, texts: ['b'] }), one(25, { passes: 10, drafted: 40, accepted: 10, offReasons: ['it does not pay'] })],
    });
    expect(figures.map(({ row, gain, tokensPerPass, acceptance, sameAsDense }) => ({ row, gain, tokensPerPass, acceptance, sameAsDense }))).toEqual([
      { row: 'dense', gain: 1, tokensPerPass: 1, acceptance: null, sameAsDense: 3 },
      { row: 'ngram', gain: 2.5, tokensPerPass: 3, acceptance: 0.4, sameAsDense: 2 },
    ]);
    expect(tableOf(figures).at(-1)).toEqual(['ngram', '3.00', '20.0', '2.50 off (1 differ)']);
  });
});
