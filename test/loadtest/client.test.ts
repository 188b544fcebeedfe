import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Client, HttpError } from '../../loadtest/client.ts';
import { answerJson, contentChunk, FINISH_CHUNK, ROLE_CHUNK, scriptedServer, sse, usageChunk, type Answer } from './scripted-server.ts';

const PATH = '/v1/chat/completions';
const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function clientOf(answer: Answer): Promise<{ client: Client; connections: () => number }> {
  const server = await scriptedServer({ [PATH]: answer });
  const client = new Client(server.baseUrl);
  closing.push(() => client.close(), server.close);
  return { client, connections: server.connections };
}

const whole = sse(ROLE_CHUNK, contentChunk('Grüße'), contentChunk(' 👋'), FINISH_CHUNK, usageChunk(7, 2, 4), '[DONE]');

describe('Client.stream', () => {
  it('reads text, finish reason, usage and metrics from frames cut at any byte', async () => {
    const { client } = await clientOf(async (_, response) => {
      const bytes = Buffer.from(whole);
      for (let from = 0; from < bytes.length; from += 97) {
        response.write(bytes.subarray(from, from + 97));
        await sleep(1);
      }
      response.end();
    });
    const result = await client.stream(PATH, {});
    expect(result).toMatchObject({ status: 200, text: 'Grüße 👋', finishReason: 'length', error: null, cancelled: false, metrics: { prefill_ms: 1 } });
    expect(result.usage?.prompt_tokens_details?.cached_tokens).toBe(4);
  });

  it('counts chunks with text only, in order of arrival', async () => {
    const { client } = await clientOf(async (_, response) => {
      response.write(': keep-alive\n\n' + sse(ROLE_CHUNK, { choices: [], prompt_progress: { total: 9 } }));
      await sleep(20);
      response.write(sse(contentChunk('a')));
      await sleep(20);
      response.end(sse(contentChunk('b'), FINISH_CHUNK, usageChunk(1, 2), '[DONE]'));
    });
    const { contentMs, sentMs, endMs } = await client.stream(PATH, {});
    expect(contentMs).toHaveLength(2);
    expect([sentMs, ...contentMs, endMs]).toEqual([sentMs, ...contentMs, endMs].sort((a, b) => a - b));
    expect(contentMs[1]!).toBeGreaterThan(contentMs[0]!);
  });

  it('asks for a stream with usage and keeps the rest of the body', async () => {
    let seen: unknown;
    const { client } = await clientOf((body, response) => { seen = body; response.end(whole); });
    await client.stream(PATH, { model: 'm', max_tokens: 2 });
    expect(seen).toEqual({ model: 'm', max_tokens: 2, stream: true, stream_options: { include_usage: true } });
  });

  it('keeps connections open: many requests after each other need two at most', async () => {
    const { client, connections } = await clientOf((_, response) => { response.end(whole); });
    for (let i = 0; i < 20; i++) await client.stream(PATH, {});
    expect(connections()).toBeLessThanOrEqual(2);
  });

  it('shows a refusal with its status and sentence', async () => {
    const { client } = await clientOf((_, response) => { answerJson(response, { error: { message: 'queue is full' } }, 429); });
    expect(await client.stream(PATH, {})).toMatchObject({ status: 429, error: '429: queue is full', contentMs: [] });
  });

  it('reports an error frame that comes after the headers', async () => {
    const { client } = await clientOf((_, response) => { response.end(sse(contentChunk('a'), { error: { message: 'engine died' } }, '[DONE]')); });
    expect(await client.stream(PATH, {})).toMatchObject({ status: 200, error: 'engine died', text: 'a' });
  });

  it('does not take a stream without [DONE] for a finished one', async () => {
    const { client } = await clientOf((_, response) => { response.end(sse(contentChunk('a'), FINISH_CHUNK)); });
    expect((await client.stream(PATH, {})).error).toBe('the stream ended without [DONE]');
  });

  it('leaves in mid-generation: the server sees the connection close, the result is cancelled and not failed', async () => {
    let closed: () => void;
    const sawClose = new Promise<void>((resolve) => (closed = resolve));
    const { client } = await clientOf((_, response) => {
      response.on('close', () => { closed(); });
      response.write(sse(ROLE_CHUNK, contentChunk('a')));
    });
    const controller = new AbortController();
    const result = await client.stream(PATH, {}, { signal: controller.signal, onContent: () => { controller.abort(); } });
    expect(result).toMatchObject({ cancelled: true, error: null, text: 'a' });
    await sawClose;
  });

  it('reports a server that is not there', async () => {
    const client = new Client('http://127.0.0.1:1');
    closing.push(() => client.close());
    expect(await client.stream(PATH, {})).toMatchObject({ status: null, cancelled: false, error: expect.stringContaining('ECONNREFUSED') as string });
  });
});

describe('Client.post', () => {
  it('throws the status and the sentence of an error', async () => {
    const { client } = await clientOf((_, response) => { answerJson(response, { error: { message: 'no' } }, 400); });
    await expect(client.post(PATH, {})).rejects.toThrow(new HttpError(400, '400: no'));
  });
});
