// Every kind of drafting through HTTP with the bundled model in fp32: greedy answers are those of plain decoding, and
// the metrics agree with each other. Holds of engines that draft and of those that do not.
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { writeNeedleDocument } from '../../loadtest/needle-documents.ts';
import { packagePath } from '../../server/package.ts';
import { realServer } from './real-server.ts';

interface Level { readonly drafted_tokens: number; readonly accepted_tokens: number; readonly acceptance_rate: number | null }

interface Chat {
  readonly choices: readonly [{ readonly message: { readonly content: string } }];
  readonly usage: { readonly completion_tokens: number; readonly completion_tokens_details: { readonly accepted_prediction_tokens: number; readonly rejected_prediction_tokens: number } };
  readonly metrics: {
    readonly generated_tokens: number;
    readonly drafted_tokens: number;
    readonly accepted_tokens: number;
    readonly exactness: string;
    readonly speculation: {
      readonly speculation: string;
      readonly verified_passes: number;
      readonly plain_passes: number;
      readonly levels: readonly Level[];
      readonly off_reason: string | null;
      readonly retrieval?: { readonly chunks: number; readonly tokens: number };
    };
  };
}

const book = readFileSync(packagePath('loadtest/texts/pride-and-prejudice.txt'), 'utf8');
const { content, value } = writeNeedleDocument(book, 3, 12_000);

describe('drafting with the bundled model in fp32', async () => {
  const server = await realServer('--engine', 'onnx', '--precision', 'fp32', '--threads', '2', '--kv-tokens', '32768');
  afterAll(() => server.close());
  const ask = (longContext: object): Promise<Chat> => server.post('/v1/chat/completions', {
    messages: [{ role: 'user', content }], temperature: 0, max_tokens: 32, long_context: longContext,
  });
  const plain = await ask({});

  it('finds the number without drafting', () => {
    expect(plain.choices[0].message.content).toContain(value);
    expect(plain.metrics.speculation).toEqual({ speculation: 'off' });
  });

  it.each<[string, object]>([
    ['ngram', { draft_tokens: 6 }],
    ['triforce', { draft_level: 'ngram', draft_budget: 640 }],
    ['triforce', { draft_level: 'none', draft_budget: 640 }],
    ['rapid', { rag_tokens: 512, rag_chunk_tokens: 64 }],
  ])('%s with %j answers as plain decoding does, and its metrics agree with each other', async (speculation, settings) => {
    const { choices, usage, metrics } = await ask({ speculation, force_speculation: true, ...settings });
    expect(choices[0].message.content).toBe(plain.choices[0].message.content);
    expect(metrics).toMatchObject({ exactness: 'exact', generated_tokens: plain.metrics.generated_tokens, speculation: { speculation } });
    const { levels, verified_passes: verified, plain_passes: alone, off_reason: offReason } = metrics.speculation;
    const last = levels.at(-1);
    expect(metrics.drafted_tokens).toBe(last?.drafted_tokens ?? 0);
    expect(metrics.accepted_tokens).toBe(last?.accepted_tokens ?? 0);
    expect(usage.completion_tokens_details).toMatchObject({ accepted_prediction_tokens: metrics.accepted_tokens, rejected_prediction_tokens: metrics.drafted_tokens - metrics.accepted_tokens });
    for (const level of levels) expect(level.accepted_tokens).toBeLessThanOrEqual(level.drafted_tokens);
    if (verified === 0) expect(offReason).not.toBeNull();
    else expect(metrics.accepted_tokens + verified + alone).toBeGreaterThanOrEqual(metrics.generated_tokens - 1);
  });

  it('tells what was retrieved, within the budget', async () => {
    const { metrics } = await ask({ speculation: 'rapid', rag_tokens: 512, rag_chunk_tokens: 64 });
    expect(metrics.speculation.retrieval).toMatchObject({ ranked_by: 'bm25', question_from: 'last paragraph', documents_from: 'conversation' });
    expect(metrics.speculation.retrieval!.tokens).toBeLessThanOrEqual(512);
    expect(metrics.speculation.retrieval!.chunks).toBeGreaterThanOrEqual(8);
  });
});
