// The bundled model in int8 on a document of about 4,000 tokens: what each kind of attention finds in it, what the
// answer's metrics say of it, and the same document again from the prefix cache.
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { writeNeedleDocument } from '../../loadtest/needle-documents.ts';
import { packagePath } from '../../server/package.ts';
import { realServer } from './real-server.ts';

interface Chat {
  readonly choices: readonly [{ readonly message: { readonly content: string } }];
  readonly usage: { readonly prompt_tokens: number; readonly prompt_tokens_details: { readonly cached_tokens: number } };
  readonly metrics: {
    readonly attention: { readonly attention: string };
    readonly attended_tokens_per_step: number;
    readonly exactness: string;
    readonly exactness_reason: string | null;
  };
}

const BUDGET = 2048;
const WINDOW = 256;
const SINKS = 64;
const book = readFileSync(packagePath('loadtest/texts/pride-and-prejudice.txt'), 'utf8');
const { content, value } = writeNeedleDocument(book, 3, 15_000);

describe('the bundled model in int8', async () => {
  const server = await realServer('--engine', 'onnx', '--threads', '2', '--kv-tokens', '32768');
  afterAll(() => server.close());
  const ask = (longContext: object): Promise<Chat> => server.post('/v1/chat/completions', {
    messages: [{ role: 'user', content }], temperature: 0, max_tokens: 24, long_context: longContext,
  });

  it.each([
    ['dense', {}],
    ['lserve', { token_budget: BUDGET }],
  ])('finds a number in 4,000 tokens with %s attention, and again from the prefix cache', async (attention, settings) => {
    const longContext = { attention, ...settings };
    const first = await ask(longContext);
    expect(first.usage.prompt_tokens).toBeGreaterThan(3500);
    expect(first.choices[0].message.content).toContain(value);
    const again = await ask(longContext);
    expect(again.choices[0].message.content).toBe(first.choices[0].message.content);
    expect(again.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(first.usage.prompt_tokens - 256);
  });

  it('does not find it through a small window, and says that the answer is approximate', async () => {
    const { choices, metrics } = await ask({ attention: 'streaming', sink_tokens: SINKS, local_tokens: WINDOW });
    expect(choices[0].message.content).not.toContain(value);
    expect(metrics).toMatchObject({ attention: { attention: 'streaming' }, exactness: 'approximate', exactness_reason: expect.stringMatching(/./) as string });
    expect(metrics.attended_tokens_per_step).toBeLessThanOrEqual(SINKS + WINDOW + 64);
  });

  it('calls dense attention exact, and selection so only where the budget holds the whole text', async () => {
    const dense = await ask({ attention: 'dense' });
    expect(dense.metrics).toMatchObject({ attention: { attention: 'dense' }, exactness: 'exact', exactness_reason: null });
    expect(dense.metrics.attended_tokens_per_step).toBeGreaterThan(dense.usage.prompt_tokens);
    const lserve = await ask({ attention: 'lserve', token_budget: BUDGET });
    expect(lserve.metrics).toMatchObject({ attention: { attention: 'lserve', token_budget: BUDGET }, exactness: 'approximate' });
    expect(lserve.metrics.attended_tokens_per_step).toBeLessThanOrEqual(BUDGET + 64);
    const ample = await ask({ attention: 'lserve', token_budget: 8192 });
    expect(ample.metrics).toMatchObject({ exactness: 'exact', exactness_reason: null });
    expect(ample.choices[0].message.content).toBe(dense.choices[0].message.content);
  });
});
