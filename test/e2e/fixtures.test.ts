// Small checkpoints of every family through POST /v1/completions, against logits and continuations that
// Hugging Face transformers computed: prefilled whole, in chunks, and after a prefix-cache hit.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { tokenName } from '../../server/generate/logprobs.ts';
import { realServer, type RealServer } from './real-server.ts';

interface Expected {
  readonly input_ids: readonly number[];
  /** Rows of the prompt's last 8 tokens. [8, vocab] */
  readonly last8_logits: readonly (readonly number[])[];
  readonly greedy: readonly number[];
  readonly greedy_margin: readonly number[];
}

interface Completion {
  readonly choices: readonly [{
    readonly token_ids: readonly number[];
    readonly prompt_token_ids: readonly number[];
    readonly logprobs: { readonly token_logprobs: readonly (number | null)[]; readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[] };
  }];
  readonly usage: { readonly prompt_tokens_details: { readonly cached_tokens: number } };
  readonly metrics: { readonly exactness: string };
}

const root = join(import.meta.dirname, '../fixtures/hf');
const TOLERANCE = 2e-3;
/** Where the two best tokens are closer, rounding may choose the other, and what follows is another text. */
const CLEAR_MARGIN = 0.01;
const TOP = 20;

function logSoftmax(row: readonly number[]): number[] {
  const most = Math.max(...row);
  const logSum = most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return row.map((logit) => logit - logSum);
}

/** Every one of the row's best tokens is reported, by its name, with its log-probability. */
function expectTop(reported: Readonly<Record<string, number>> | null | undefined, row: readonly number[], { services }: RealServer): void {
  const wanted = logSoftmax(row);
  const best = wanted.map((_, token) => token).sort((a, b) => wanted[b]! - wanted[a]!);
  // The last of the reported ones may be as likely as the first that is not.
  for (const token of best.slice(0, TOP - 1)) {
    const name = tokenName(services.text.tokenizer.tokenBytes(token));
    if (wanted[token]! - wanted[best[TOP]!]! < 2 * TOLERANCE) continue;
    expect(Math.abs((reported?.[name] ?? Infinity) - wanted[token]!), `token ${token}, "${name}"`).toBeLessThan(TOLERANCE);
  }
}

function expectGreedy(tokens: readonly number[], { greedy, greedy_margin: margins }: Expected): void {
  const different = greedy.findIndex((token, i) => token !== tokens[i]);
  expect(tokens).toHaveLength(greedy.length);
  expect(different === -1 || margins[different]! <= CLEAR_MARGIN, `token ${different} is ${tokens[different]}, not ${greedy[different]}`).toBe(true);
}

function complete(server: RealServer, { input_ids: prompt, greedy }: Expected, changes: object = {}): Promise<Completion> {
  return server.post('/v1/completions', {
    prompt, max_tokens: greedy.length, temperature: 0, ignore_eos: true, return_token_ids: true, logprobs: TOP, ...changes,
  });
}

describe.each(readdirSync(root))('%s', (name) => {
  const model = join(root, name);
  const expected = JSON.parse(readFileSync(join(model, 'expected.json'), 'utf8')) as Expected;
  const serve = async (stepTokens: number): Promise<RealServer> => {
    const server = await realServer('--engine', 'onnx', '--precision', 'fp32', '--model', model, '--kv-tokens', '8192', '--step-tokens', String(stepTokens));
    onTestFinished(() => server.close());
    return server;
  };

  it.each([4096, 64, 100])('answers as transformers does in steps of %i tokens, and again from the prefix cache', async (stepTokens) => {
    const server = await serve(stepTokens);
    for (const isRepetition of [false, true]) {
      const { choices: [choice], usage, metrics } = await complete(server, expected);
      expect(choice.prompt_token_ids).toEqual(expected.input_ids);
      expectGreedy(choice.token_ids, expected);
      expectTop(choice.logprobs.top_logprobs[0], expected.last8_logits.at(-1)!, server);
      expect(usage.prompt_tokens_details.cached_tokens > 0).toBe(isRepetition);
      expect(metrics.exactness).toBe('exact');
    }
  });

  it.each([4096, 64, 100])('scores the prompt as transformers does in steps of %i tokens', async (stepTokens) => {
    const server = await serve(stepTokens);
    await complete(server, expected); // What it leaves in the prefix cache must not replace the scores.
    const { choices: [{ logprobs }] } = await complete(server, expected, { echo: true, max_tokens: 1 });
    const { input_ids: prompt, last8_logits: rows } = expected;
    expect(logprobs.token_logprobs).toHaveLength(prompt.length + 1);
    expect(logprobs.token_logprobs[0]).toBeNull();
    rows.forEach((row, i) => {
      const next = prompt.length - rows.length + i + 1;
      expectTop(logprobs.top_logprobs[next], row, server);
      const token = prompt[next];
      if (token !== undefined) expect(Math.abs(logprobs.token_logprobs[next]! - logSoftmax(row)[token]!)).toBeLessThan(TOLERANCE);
    });
  });
});
