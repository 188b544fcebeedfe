// The program as it is started, with the bundled model on the real engine: the official client, clients that leave,
// and an engine process that is killed.
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { packagePath } from '../../server/package.ts';

const model = 'longspan-16m';
const messages = [{ role: 'user' as const, content: 'Tell me a story about a house.' }];
/** Far longer than any test waits. */
const endless = { model, messages, max_tokens: 100_000, stream: true as const, ignore_eos: true };

describe('the program with the bundled model', () => {
  let child: ChildProcess;
  let origin = '';
  let client: OpenAI;

  beforeAll(async () => {
    const flags = ['--port', '0', '--threads', '2', '--kv-tokens', '65536', '--no-access-log'];
    child = spawn(process.execPath, [packagePath('bin/longspan.mjs'), ...flags], { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout!.on('data', (chunk: Buffer) => { output += chunk.toString(); });
    await vi.waitFor(() => { expect(output).toMatch(/Ready on /); }, { timeout: 30_000 });
    origin = /Ready on (http:\S+)\/v1/.exec(output)![1]!;
    client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: 'none', maxRetries: 0 });
  });
  afterAll(() => { child.kill('SIGKILL'); });

  const isReady = async (): Promise<boolean> => (await fetch(`${origin}/ready`)).ok;

  /** Sequences that run or wait, and pages that they hold. */
  async function load(): Promise<number> {
    const text = await (await fetch(`${origin}/metrics`)).text();
    const gauges = [...text.matchAll(/^(?:vllm:num_requests_(?:running|waiting)|longspan:pages)\{([^}]*)\} (\d+)$/gm)];
    return gauges.filter(([, labels]) => !/state="(?:free|cached)"/.test(labels!)).reduce((sum, [, , value]) => sum + Number(value), 0);
  }

  it('streams to the official client what it answers whole', async () => {
    const body = { model, messages, max_tokens: 20, temperature: 0, n: 2 };
    const whole = await client.chat.completions.create({ ...body, logprobs: true, top_logprobs: 3 });
    const texts = ['', ''];
    for await (const { choices } of await client.chat.completions.create({ ...body, stream: true })) {
      for (const { index, delta } of choices) texts[index] = texts[index]! + (delta.content ?? '');
    }
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    expect(whole.choices.map(({ logprobs }) => logprobs?.content?.length)).toEqual([20, 20]);
  });

  it('answers the same seed alike alone and in company', async () => {
    const ask = (seed: number) => client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 40, temperature: 1, seed });
    const [alone] = (await ask(42)).choices;
    const company = await Promise.all([42, 1, 2, 3, 4, 5].map(ask));
    expect(company[0]!.choices[0]!.text).toBe(alone!.text);
    expect(new Set(company.map(({ choices }) => choices[0]!.text)).size).toBe(6);
  });

  it('runs nothing and holds no page within two seconds after 200 streams were left', async () => {
    const streams = await Promise.all(Array.from({ length: 200 }, () => client.chat.completions.create(endless)));
    await expect.poll(load).toBeGreaterThan(60);
    for (const stream of streams) stream.controller.abort();
    await expect.poll(load, { timeout: 2000 }).toBe(0);
    expect((await client.completions.create({ model, prompt: 'a', max_tokens: 1 })).usage?.completion_tokens).toBe(1);
  });

  it('drops a long prompt whose client leaves while it is computed', async () => {
    const content = 'A long story. '.repeat(8000);
    const leaving = new AbortController();
    const answer = client.chat.completions.create({ model, messages: [{ role: 'user', content }] }, { signal: leaving.signal });
    const left = expect(answer).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
    await expect.poll(load).toBeGreaterThan(1);
    leaving.abort();
    await left;
    await expect.poll(load, { timeout: 5000 }).toBe(0);
  });

  it.runIf(process.platform === 'linux')('ends every request with an error when the engine is killed, and serves again by itself', async () => {
    const readAll = async (): Promise<void> => {
      for await (const chunk of await client.chat.completions.create(endless)) expect(chunk.choices).toBeDefined();
    };
    const whole = client.chat.completions.create({ ...endless, stream: false });
    const endings = Promise.allSettled([whole, ...Array.from({ length: 10 }, readAll)]);
    await expect.poll(load).toBeGreaterThan(10);
    const engine = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim());
    process.kill(engine, 'SIGKILL');
    const codes = (await endings).map((ending) => (ending.status === 'rejected' ? (ending.reason as { code?: unknown }).code : 'fulfilled'));
    expect(codes).toEqual(Array.from({ length: 11 }, () => 'engine_failed'));
    await expect.poll(isReady, { timeout: 15_000 }).toBe(true);
    expect((await client.completions.create({ model, prompt: 'a', max_tokens: 1 })).usage?.completion_tokens).toBe(1);
  });
});
