// Every choice of long_context through HTTP with the bundled model: what the answer's metrics say is what the engine
// itself counted, and what is out of bounds is refused with a sentence that names the field.
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { LongContext } from '../../routes/schemas.ts';
import { packagePath } from '../../server/package.ts';
import { realServer } from './real-server.ts';

interface Completion {
  readonly choices: readonly [{ readonly text: string }];
  readonly metrics: {
    readonly cached_tokens: number;
    readonly generated_tokens: number;
    readonly attended_tokens_per_step: number;
    readonly pages_read_per_step: number;
    readonly drafted_tokens: number;
    readonly accepted_tokens: number;
    readonly attention: Readonly<Record<string, unknown>>;
    readonly exactness: string;
  };
}

const PROMPT_TOKENS = 1500;
const ANSWER_TOKENS = 40;
const QUERY_HEADS_OF_A_KV_HEAD = 3;
const text = readFileSync(packagePath('loadtest/texts/pride-and-prejudice.txt'), 'utf8').slice(0, 8000);

describe('long_context on the bundled model in int8', async () => {
  const server = await realServer('--engine', 'onnx', '--threads', '2', '--kv-tokens', '16384');
  afterAll(() => server.close());
  const { tokens } = await server.post<{ tokens: number[] }>('/tokenize', { prompt: text });
  const prompt = tokens.slice(0, PROMPT_TOKENS);

  const ask = (longContext: object, maxTokens: number): Promise<Completion> =>
    server.post('/v1/completions', { prompt, temperature: 0, max_tokens: maxTokens, min_tokens: maxTokens, long_context: longContext });

  /** What a series rose by while an answer was made. */
  async function counted<Answer>(names: readonly string[], make: () => Promise<Answer>): Promise<{ answer: Answer; rise: number[] }> {
    const read = async (): Promise<number[]> => {
      const { body } = await server.app.inject('/metrics');
      return names.map((name) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(body)![1]));
    };
    const before = await read();
    const answer = await make();
    return { answer, rise: (await read()).map((value, i) => value - before[i]!) };
  }

  /** Until the prefix cache gives as much of the prompt as it ever will: streaming attention adds to it with each request. */
  async function settle(asked: object): Promise<void> {
    for (let known = -1; ;) {
      const { metrics } = await ask(asked, ANSWER_TOKENS);
      if (metrics.cached_tokens === known) return;
      known = metrics.cached_tokens;
    }
  }

  it.each([
    [{ attention: 'dense' }, { attention: 'dense' }, 'exact'],
    [{ attention: 'streaming', sink_tokens: 64, local_tokens: 256 }, { sink_tokens: 64, local_tokens: 256, renumber_positions: true }, 'approximate'],
    [{ attention: 'streaming', sink_tokens: 0, local_tokens: 256, renumber_positions: false }, { sink_tokens: 0, renumber_positions: false }, 'approximate'],
    [{ attention: 'lserve', token_budget: 512 }, { token_budget: 512, streaming_heads: 0, selection_interval: 1 }, 'approximate'],
    [{ attention: 'lserve', token_budget: 512, streaming_heads: 0.5, sink_tokens: 64, local_tokens: 256 }, { streaming_heads: 0.5, sink_tokens: 64, local_tokens: 256 }, 'approximate'],
    [{ attention: 'lserve', token_budget: 512, selection_interval: 1, sparse_prefill: false }, { selection_interval: 1, sparse_prefill: false }, 'approximate'],
    [{ attention: 'lserve', token_budget: 512, selection_per_query_head: true }, { selection_per_query_head: true }, 'approximate'],
    [{ attention: 'lserve', token_budget: 2048 }, { token_budget: 2048 }, 'exact'],
  ])('%j is applied, and what was read is what the engine counted', async (asked, applied, exactness) => {
    const names = ['longspan:pages_read_total', 'longspan:attended_tokens_total'];
    await settle(asked);
    // Twice the same prefill, from the cache; the second is followed by decode steps.
    const alone = await counted(names, () => ask(asked, 1));
    const { answer: { metrics }, rise: [pages, attended] } = await counted(names, () => ask(asked, ANSWER_TOKENS));
    expect(alone.answer.metrics.cached_tokens).toBe(metrics.cached_tokens);
    expect(metrics.attention).toMatchObject({ attention: asked.attention, ...applied });
    expect(metrics.exactness).toBe(exactness);
    const steps = ANSWER_TOKENS - 1;
    // Where query heads pick for themselves, the engine reads a list for each of them; the metric is that of one.
    const lists = 'selection_per_query_head' in asked ? QUERY_HEADS_OF_A_KV_HEAD : 1;
    expect(lists * metrics.pages_read_per_step * steps).toBeCloseTo(pages! - alone.rise[0]!, 0);
    expect(metrics.attended_tokens_per_step * steps).toBeCloseTo(attended! - alone.rise[1]!, 0);
  });

  it.each([
    { speculation: 'ngram', draft_tokens: 5 },
    { speculation: 'ngram', attention: 'lserve', token_budget: 512 },
    { speculation: 'triforce', draft_level: 'none', draft_budget: 512 },
    { speculation: 'triforce', draft_level: 'ngram', draft_budget: 512, draft_tokens: 4 },
    { speculation: 'rapid', question: 'Who is Mr. Bingley?', documents: [text], rag_tokens: 256, rag_chunk_tokens: 64 },
  ])('%j drafts what the engine counted', async (asked) => {
    const names = ['vllm:spec_decode_num_draft_tokens_total', 'vllm:spec_decode_num_accepted_tokens_total', 'vllm:generation_tokens_total'];
    const { answer: { metrics }, rise } = await counted(names, () => ask({ ...asked, force_speculation: true }, ANSWER_TOKENS));
    expect(rise).toEqual([metrics.drafted_tokens, metrics.accepted_tokens, metrics.generated_tokens]);
    expect(metrics.accepted_tokens).toBeLessThanOrEqual(metrics.drafted_tokens);
  });

  it.each(wrongValues())('refuses %j', async (field, value) => {
    const reply = await server.app.inject({ method: 'POST', url: '/v1/completions', payload: { prompt: 'Once', max_tokens: 1, long_context: { [field]: value } } });
    expect(reply.statusCode, reply.body).toBe(400);
    const { error } = reply.json<{ error: { message: string; param: string; type: string; code: string } }>();
    expect(error).toMatchObject({ type: 'invalid_request_error', param: `long_context.${field}` });
    expect(error.message).toContain(field);
    expect(error.code).not.toBe('');
  });
});

interface Field { readonly type: string; readonly minimum?: number; readonly maximum?: number; readonly enum?: readonly string[] }

/** For each field what its schema excludes: another type, and what lies beyond its bounds. */
function wrongValues(): [field: string, value: unknown][] {
  return Object.entries(LongContext.properties as unknown as Record<string, Field>).flatMap(([name, { type, minimum, maximum, enum: values }]): [string, unknown][] => {
    const ofType = type === 'string' ? 5 : 'five';
    const beyond = [...(minimum === undefined ? [] : [minimum - 1]), ...(maximum === undefined ? [] : [maximum + 1])];
    return [[name, ofType], [name, null], ...beyond.map((value): [string, unknown] => [name, value]), ...(values === undefined ? [] : [[name, 'none such'] as [string, unknown]]), ...(type === 'integer' ? [[name, minimum! + 0.5] as [string, unknown]] : [])];
  });
}
