// Too little KV memory: answers must not show it, and what fits must be served.
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { realServer, type RealServer } from './real-server.ts';

interface Completion {
  readonly choices: readonly { readonly token_ids: readonly number[] }[];
  readonly metrics: { readonly preemptions: number; readonly recomputed_tokens: number };
}

async function serve(...flags: string[]): Promise<RealServer> {
  const server = await realServer(...flags);
  onTestFinished(() => server.close());
  return server;
}

const tokensOf = ({ choices }: Completion): readonly (readonly number[])[] => choices.map(({ token_ids: tokens }) => tokens);

const model = join(import.meta.dirname, '../fixtures/hf/qwen2');
const exactly = ['--engine', 'onnx', '--precision', 'fp32', '--model', model];
const prompt = (from: number, tokens: number): number[] => Array.from({ length: tokens }, (_, i) => 10 + ((from + i * i) % 480));
const request = { temperature: 0, ignore_eos: true, return_token_ids: true };

it('answers what an idle server answers while sequences preempt each other', async () => {
  const bodies = Array.from({ length: 10 }, (_, i) => ({ ...request, prompt: prompt(31 * i, 40 + 37 * i), max_tokens: 60 + 20 * (i % 4), priority: i % 3 }));
  const idle = await serve(...exactly, '--kv-tokens', '8192');
  const expected: (readonly (readonly number[])[])[] = [];
  for (const body of bodies) expected.push(tokensOf(await idle.post<Completion>('/v1/completions', body)));

  const crowded = await serve(...exactly, '--kv-tokens', '1024');
  const answers = await Promise.all(bodies.map((body) => crowded.post<Completion>('/v1/completions', body)));
  expect(answers.map(tokensOf)).toEqual(expected);
  expect(answers.reduce((sum, { metrics }) => sum + metrics.recomputed_tokens, 0), 'the test has to preempt').toBeGreaterThan(0);
});

it('preempts no choice again and again when the same choices were answered before', async () => {
  const server = await serve(...exactly, '--kv-tokens', '2048');
  const ask = (tokens: number): Promise<Completion> =>
    server.post('/v1/completions', { ...request, prompt: prompt(0, 1000), n: 8, max_tokens: tokens, temperature: 1, seed: 7 });
  const before = await ask(64);
  const { metrics, choices } = await ask(200);
  expect(choices.map(({ token_ids: tokens }) => tokens.slice(0, 64))).toEqual(tokensOf(before));
  expect(metrics.preemptions).toBeLessThanOrEqual(8);
});

it('scores a prompt that is cached already in memory that holds it once', async () => {
  const server = await serve('--engine', 'fake', '--kv-tokens', '4096');
  const body = { prompt: prompt(0, 3000), max_tokens: 5, temperature: 0 };
  await server.post('/v1/completions', body);
  await server.post('/v1/completions', { ...body, echo: true, logprobs: 1 });
});
