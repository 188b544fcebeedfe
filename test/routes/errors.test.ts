import { expect, test } from 'vitest';
import { ScriptedEngine, type ScriptedRequest } from './scripted-engine.ts';
import { MODEL, testbed } from './testbed.ts';

const VOCAB = 8192;
const finishAtOnce = (request: ScriptedRequest): void => { request.finish(); };
const messages = [{ role: 'user', content: 'Hello' }];

async function bench(flags: string[] = [], answer = finishAtOnce) {
  const engine = new ScriptedEngine({ vocab: VOCAB, answer });
  const { app, services } = await testbed(engine, flags);
  const post = async (url: string, payload: object) => {
    const reply = await app.inject({ method: 'POST', url, payload });
    return { status: reply.statusCode, headers: reply.headers, error: reply.json<{ error: object }>().error, body: reply.json<unknown>() };
  };
  return { engine, app, services, post, chat: (body: object) => post('/v1/chat/completions', { messages, ...body }), complete: (body: object) => post('/v1/completions', { prompt: 'Hi', ...body }) };
}

test.each<[object, string, string | null]>([
  [{ temperature: 2.1 }, 'decimal_above_max_value', 'temperature'],
  [{ temperature: -0.1 }, 'decimal_below_min_value', 'temperature'],
  [{ top_p: 1.5 }, 'decimal_above_max_value', 'top_p'],
  [{ n: 0 }, 'integer_below_min_value', 'n'],
  [{ n: 1000 }, 'integer_above_max_value', 'n'],
  [{ n: 'two' }, 'invalid_type', 'n'],
  [{ max_tokens: 0 }, 'integer_below_min_value', 'max_tokens'],
  [{ max_tokens: 2, min_tokens: 3 }, 'integer_above_max_value', 'min_tokens'],
  [{ seed: 1.5 }, 'invalid_type', 'seed'],
  [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 'array_above_max_length', 'stop'],
  [{ stop: '' }, 'empty_string', 'stop'],
  [{ stop: [1] }, 'invalid_type', 'stop[0]'],
  [{ logit_bias: { 5: 101 } }, 'decimal_above_max_value', 'logit_bias[5]'],
  [{ logit_bias: { 99999: 1 } }, 'invalid_value', 'logit_bias'],
  [{ top_logprobs: 3 }, 'invalid_value', 'top_logprobs'],
  [{ logprobs: true, top_logprobs: 21 }, 'integer_above_max_value', 'top_logprobs'],
  [{ stream_options: { include_usage: true } }, 'invalid_value', 'stream_options'],
  [{ messages: [] }, 'empty_array', 'messages'],
  [{ messages: undefined }, 'missing_required_parameter', 'messages'],
  [{ messages: [{ content: 'x' }] }, 'missing_required_parameter', 'messages[0].role'],
  [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, 'missing_required_parameter', 'messages[0].content[0].text'],
  [{ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }, 'unsupported_value', 'messages[0].content[0].type'],
  [{ messages: [{ role: 'user', content: [{ text: 'x' }] }] }, 'missing_required_parameter', 'messages[0].content[0].type'],
  [{ response_format: { type: 'json_object' } }, 'unsupported_parameter', 'response_format'],
  [{ tools: [{ type: 'function' }] }, 'unsupported_parameter', 'tools'],
  [{ long_context: { atention: 'dense' } }, 'unknown_parameter', 'long_context.atention'],
  [{ long_context: { attention: 'sparse' } }, 'invalid_value', 'long_context.attention'],
  [{ long_context: { token_budget: 319 } }, 'integer_below_min_value', 'long_context.token_budget'],
  [{ long_context: { selection_interval: 65 } }, 'integer_above_max_value', 'long_context.selection_interval'],
  [{ long_context: { attention: 'lserve', streaming_heads: 0.5 } }, 'unsupported_value', 'long_context.streaming_heads'],
  [{ long_context: { attention: 'lserve', speculation: 'triforce' } }, 'unsupported_value', 'long_context.speculation'],
  [{ long_context: { speculation: 'medusa' } }, 'invalid_value', 'long_context.speculation'],
  [{ long_context: { attention: 'streaming', speculation: 'triforce' } }, 'unsupported_value', 'long_context.speculation'],
  [{ long_context: { attention: 'streaming', speculation: 'rapid' } }, 'unsupported_value', 'long_context.speculation'],
  [{ long_context: { draft_tokens: 4 } }, 'unsupported_value', 'long_context.draft_tokens'],
  [{ long_context: { speculation: 'ngram', draft_tokens: 65 } }, 'integer_above_max_value', 'long_context.draft_tokens'],
  [{ long_context: { speculation: 'ngram', draft_budget: 640 } }, 'unsupported_value', 'long_context.draft_budget'],
  [{ long_context: { speculation: 'triforce', draft_level: 'model' } }, 'unsupported_value', 'long_context.draft_level'],
  [{ long_context: { speculation: 'rapid', draft_level: 'model' } }, 'unsupported_value', 'long_context.draft_level'],
  [{ long_context: { speculation: 'rapid', draft_level: 'ngram' } }, 'unsupported_value', 'long_context.draft_level'],
  [{ long_context: { speculation: 'ngram', draft_level: 'none' } }, 'unsupported_value', 'long_context.draft_level'],
  [{ long_context: { speculation: 'triforce', question: 'Why?' } }, 'unsupported_value', 'long_context.question'],
  [{ long_context: { documents: ['a'] } }, 'unsupported_value', 'long_context.documents'],
  [{ long_context: { speculation: 'rapid', documents: [] } }, 'empty_array', 'long_context.documents'],
  [{ long_context: { speculation: 'ngram', eta: 5 } }, 'unsupported_value', 'long_context.eta'],
  [{ long_context: { speculation: 'rapid', eta: 101 } }, 'decimal_above_max_value', 'long_context.eta'],
  [{ long_context: { speculation: 'rapid', rag_tokens: 256, rag_chunk_tokens: 257 } }, 'invalid_value', 'long_context.rag_chunk_tokens'],
  [{ long_context: { force_speculation: true } }, 'unsupported_value', 'long_context.force_speculation'],
  [{ deadline_ms: 0 }, 'integer_below_min_value', 'deadline_ms'],
  [{ priority: 0.5 }, 'invalid_type', 'priority'],
  [{ stop_token_ids: [VOCAB] }, 'invalid_value', 'stop_token_ids[0]'],
  [{ max_tokens: 5000 }, 'context_length_exceeded', 'messages'],
])('chat with %j is 400 %s', async (body, code, param) => {
  const { chat, engine } = await bench();
  const { status, error, headers } = await chat(body);
  expect(error).toMatchObject({ type: 'invalid_request_error', code, param });
  expect(status).toBe(400);
  expect(headers['x-should-retry']).toBe('false');
  expect(engine.requests).toHaveLength(0);
});

test.each<[object, string, string | null]>([
  [{ prompt: '' }, 'invalid_value', 'prompt'],
  [{ prompt: [] }, 'empty_array', 'prompt'],
  [{ prompt: [[]] }, 'empty_array', 'prompt[0]'],
  [{ prompt: undefined }, 'missing_required_parameter', 'prompt'],
  [{ prompt: ['a', 1] }, 'invalid_type', 'prompt'],
  [{ prompt: { a: 1 } }, 'invalid_type', 'prompt'],
  [{ prompt: [1, VOCAB] }, 'invalid_value', 'prompt[1]'],
  [{ prompt: [-1] }, 'integer_below_min_value', 'prompt[0]'],
  [{ long_context: { speculation: 'rapid' } }, 'unsupported_value', 'long_context.documents'],
  [{ long_context: { speculation: 'rapid', documents: ['a'] } }, 'unsupported_value', 'long_context.question'],
  [{ prompt: ['a', 'b'], long_context: { speculation: 'rapid', documents: ['a'], question: 'b' } }, 'unsupported_value', 'prompt'],
  [{ suffix: 'x' }, 'unsupported_parameter', 'suffix'],
  [{ best_of: 3 }, 'unsupported_value', 'best_of'],
  [{ max_tokens: 0 }, 'integer_below_min_value', 'max_tokens'],
  [{ logprobs: 21 }, 'integer_above_max_value', 'logprobs'],
])('a completion with %j is 400 %s', async (body, code, param) => {
  const { complete, engine } = await bench();
  const { status, error } = await complete(body);
  expect(error).toMatchObject({ code, param });
  expect(status).toBe(400);
  expect(engine.requests).toHaveLength(0);
});

test('both numbers stand in the message of a prompt that is too long', async () => {
  const { complete } = await bench();
  const { error } = await complete({ prompt: Array.from({ length: 5000 }, () => 7) });
  expect(error).toMatchObject({ message: "This model's maximum context length is 4096 tokens. However, your prompt resulted in 5000 tokens. Please reduce the length of the prompt." });
});

test('a stream that is refused has a real status and a JSON body', async () => {
  const { complete } = await bench();
  const { status, headers, error } = await complete({ prompt: Array.from({ length: 5000 }, () => 7), stream: true });
  expect(status).toBe(400);
  expect(headers['content-type']).toContain('application/json');
  expect(error).toMatchObject({ code: 'context_length_exceeded' });
});

test('an unknown model is 404, the served one and none at all are answered', async () => {
  const { chat } = await bench();
  expect(await chat({ model: 'gpt-x' })).toMatchObject({ status: 404, error: { code: 'model_not_found', param: 'model' } });
  expect((await chat({ model: MODEL })).status).toBe(200);
  expect((await chat({})).status).toBe(200);
});

test('nulls are as if left out, and what has no effect is accepted', async () => {
  const { chat } = await bench();
  const reply = await chat({
    temperature: null, top_p: null, n: null, stop: null, max_tokens: null, stream: null, stream_options: null, logit_bias: null, seed: null, tools: null,
    response_format: { type: 'text' }, user: 'u', metadata: { a: 'b' }, store: false, service_tier: 'auto', tool_choice: 'none', prompt_cache_key: 'k',
  });
  expect(reply.status).toBe(200);
  expect(reply.headers).not.toHaveProperty('x-longspan-ignored-parameters');
});

test('an unknown parameter is ignored and named in a header', async () => {
  const { chat } = await bench();
  const reply = await chat({ top_a: 0.5, mirostat: 2 });
  expect(reply.status).toBe(200);
  expect(reply.headers['x-longspan-ignored-parameters']).toBe('top_a, mirostat');
});

test('a full queue is 429 with Retry-After and a reason, also for a stream', async () => {
  const { chat, engine } = await bench(['--max-queued-requests', '2']);
  engine.queued = { requests: 2, tokens: 10 };
  engine.gauges = { ...engine.gauges, prefillBacklogTokens: 42_000, prefillTokensPerSecond: 1000 };
  const { status, error, headers } = await chat({ stream: true });
  expect(status).toBe(429);
  expect(error).toMatchObject({ code: 'queue_full', type: 'requests' });
  expect(headers).toMatchObject({ 'retry-after': '42', 'retry-after-ms': '42000' });
});

test('a deadline that cannot be met is 429 at once', async () => {
  const { chat, engine } = await bench();
  engine.gauges = { ...engine.gauges, prefillBacklogTokens: 42_000, prefillTokensPerSecond: 1000 };
  expect(await chat({ deadline_ms: 1000 })).toMatchObject({ status: 429, error: { code: 'deadline_unreachable' } });
  expect((await chat({ deadline_ms: 60_000 })).status).toBe(200);
});

test('an engine that is starting is 503 with Retry-After', async () => {
  const { chat, engine } = await bench();
  engine.state = 'restarting';
  const { status, headers, error } = await chat({});
  expect(status).toBe(503);
  expect(error).toMatchObject({ code: 'engine_unavailable', type: 'server_error' });
  expect(headers).toHaveProperty('retry-after');
});

test('places are given back after a refusal', async () => {
  const { complete, services } = await bench(['--max-queued-requests', '1']);
  for (let i = 0; i < 3; i++) expect((await complete({ prompt: Array.from({ length: 5000 }, () => 7) })).status).toBe(400);
  expect((await complete({})).status).toBe(200);
  services.admission.reserve({ prompts: 1, tokens: 1, deadlineMs: null });
  expect((await complete({})).status).toBe(429);
});

test('more prompts than the queue can ever hold are 400, not 429', async () => {
  const { complete } = await bench(['--max-queued-requests', '2']);
  expect(await complete({ prompt: ['a', 'b', 'c'] })).toMatchObject({ status: 400, error: { code: 'array_above_max_length', param: 'prompt' } });
});

test('an engine that fails before anything was sent gives a plain answer its status', async () => {
  const { chat } = await bench([], (request) => {
    request.push({ type: 'failed', id: request.request.id, choice: 0, code: 'kv_capacity', message: 'too small' });
  });
  expect(await chat({})).toMatchObject({ status: 400, error: { code: 'kv_capacity' } });
});

test('/tokenize and /detokenize have vLLM\'s shapes and undo each other', async () => {
  const { post } = await bench();
  const { body } = await post('/tokenize', { prompt: 'Hello wörld', return_token_strs: true });
  const { tokens, token_strs, count, max_model_len } = body as { tokens: number[]; token_strs: string[]; count: number; max_model_len: number };
  expect(count).toBe(tokens.length);
  expect(max_model_len).toBe(4096);
  expect(token_strs).toHaveLength(count);
  expect((await post('/detokenize', { tokens })).body).toEqual({ prompt: 'Hello wörld' });
  expect((await post('/tokenize', { messages })).body).toMatchObject({ token_strs: null });
  expect((await post('/tokenize', {})).status).toBe(400);
  expect((await post('/detokenize', { tokens: [VOCAB] }))).toMatchObject({ status: 400, error: { param: 'tokens[0]' } });
});

test('special tokens in a message are text, in a raw prompt they are tokens', async () => {
  const { post } = await bench();
  const tokens = async (payload: object) => ((await post('/tokenize', payload)).body as { tokens: number[] }).tokens;
  const [end] = await tokens({ prompt: '<|im_end|>' });
  const numEnds = (ids: number[]) => ids.filter((id) => id === end).length;
  expect(numEnds(await tokens({ prompt: 'a<|im_end|>b' }))).toBe(1);
  const plain = await tokens({ messages: [{ role: 'user', content: 'a' }] });
  expect(numEnds(await tokens({ messages: [{ role: 'user', content: 'a<|im_end|>b' }] }))).toBe(numEnds(plain));
});

test('/openapi.json describes the endpoints by the schemas that validate them', async () => {
  const { app } = await bench();
  const document = (await app.inject('/openapi.json')).json<{ openapi: string; paths: Record<string, { post?: { requestBody: { content: Record<string, { schema: { properties: Record<string, object> } }> } } }> }>();
  expect(document.openapi).toBe('3.1.0');
  expect(Object.keys(document.paths)).toEqual(expect.arrayContaining(['/v1/chat/completions', '/v1/completions', '/tokenize', '/detokenize', '/v1/models']));
  const { properties } = document.paths['/v1/chat/completions']!.post!.requestBody.content['application/json']!.schema;
  expect(properties['temperature']).toMatchObject({ type: ['number', 'null'], minimum: 0, maximum: 2 });
  expect(properties['long_context']).toMatchObject({ additionalProperties: false });
});
