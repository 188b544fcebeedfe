/** The official client against a real socket, the real scheduler and the fake engine. */
import OpenAI from 'openai';
import { expect, test } from 'vitest';
import type { FakeEngineOptions } from '../../engine/fake/fake-engine.ts';
import { loadTokenizer } from '../../tokenizer/tokenizer.ts';
import { hostEngine } from './host-engine.ts';
import { MODEL, folder, testbed } from './testbed.ts';

const tokenizer = await loadTokenizer(folder);
const decode = (ids: number[]): string => tokenizer.decode(ids, { skipSpecial: true });
const messages = [{ role: 'user' as const, content: 'Tell me about pages.' }];

interface Ours {
  metrics: Record<string, unknown>;
  prompt_token_ids: number[];
}
type Choice = Record<'token_ids' | 'prompt_token_ids', number[]> & { stop_reason: string | number | null };
const ours = (answer: object) => answer as unknown as Ours;
const extra = (choice: unknown) => choice as Choice;

async function served(engineOptions: Partial<FakeEngineOptions> = {}, flags: string[] = []) {
  const engine = await hostEngine(engineOptions);
  const bed = await testbed(engine, flags);
  const baseURL = `${await bed.listen()}/v1`;
  const client = new OpenAI({ baseURL, apiKey: 'key', maxRetries: 0 });
  const chat = (body: object) => client.chat.completions.create({ model: MODEL, messages, temperature: 0, max_completion_tokens: 12, ...body, stream: false });
  const complete = (body: object) => client.completions.create({ model: MODEL, prompt: 'Once', temperature: 0, max_tokens: 12, ...body, stream: false });
  return { engine, client, chat, complete, baseURL, ...bed };
}

/** Nothing runs, no page is held. */
async function isIdle({ engine, services }: Awaited<ReturnType<typeof served>>): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, 5));
  const { runningSequences, waitingSequences, pagesHeld } = engine.gauges;
  return runningSequences === 0 && waitingSequences === 0 && pagesHeld === 0 && engine.queued.requests === 0 && services.lifecycle.active === 0;
}

test('a chat answers with text, usage, metrics and a request id', async () => {
  const { chat } = await served();
  const answer = await chat({});
  const [choice] = answer.choices;
  expect(answer).toMatchObject({ object: 'chat.completion', model: MODEL, system_fingerprint: 'fp_fake_none' });
  expect(answer.id).toMatch(/^chatcmpl-/);
  expect(choice).toMatchObject({ index: 0, finish_reason: 'length', stop_reason: null, logprobs: null, message: { role: 'assistant', refusal: null } });
  expect(choice!.message.content!.length).toBeGreaterThan(0);
  expect(answer.usage).toMatchObject({ completion_tokens: 12, prompt_tokens_details: { cached_tokens: 0 }, completion_tokens_details: { accepted_prediction_tokens: 0 } });
  expect(answer.usage!.total_tokens).toBe(answer.usage!.prompt_tokens + 12);
  expect(ours(answer).metrics).toMatchObject({ generated_tokens: 12, exactness: 'exact', exactness_reason: null, attention: { attention: 'dense' } });
  expect(answer._request_id).toMatch(/^req_/);
});

test('the stream says what the plain answer says', async () => {
  const { chat, client } = await served();
  const whole = await chat({ return_token_ids: true });
  const stream = await client.chat.completions.create({
    model: MODEL, messages, temperature: 0, max_completion_tokens: 12, stream: true, stream_options: { include_usage: true }, ...{ return_token_ids: true },
  });
  let text = '';
  const ids: number[] = [];
  const reasons: string[] = [];
  let last: OpenAI.ChatCompletionChunk | null = null;
  for await (const chunk of stream) {
    const choice = chunk.choices[0];
    text += choice?.delta.content ?? '';
    if (choice !== undefined) ids.push(...(extra(choice).token_ids as number[] | undefined) ?? []);
    if (choice?.finish_reason) reasons.push(choice.finish_reason);
    last = chunk;
  }
  expect(text).toBe(whole.choices[0]!.message.content);
  expect(ids).toEqual(extra(whole.choices[0]).token_ids);
  expect(reasons).toEqual(['length']);
  expect(last).toMatchObject({ choices: [], usage: { completion_tokens: 12 } });
});

test('the client\'s own stream helper assembles the message', async () => {
  const { client, chat } = await served();
  const final = await client.chat.completions.stream({ model: MODEL, messages, temperature: 0, max_completion_tokens: 12 }).finalChatCompletion();
  expect(final.choices[0]!.message.content).toBe((await chat({})).choices[0]!.message.content);
});

test('completions take a string, strings, token ids and lists of them, and say the same for the same prompt', async () => {
  const { complete } = await served();
  const ids = Array.from(tokenizer.encode('Once', { special: 'parse' }));
  const [text] = (await complete({})).choices;
  const lists = await Promise.all([complete({ prompt: ids }), complete({ prompt: ['Once', 'Twice'] }), complete({ prompt: [ids, [5, 6, 7]] })]);
  for (const { choices } of lists) expect(choices[0]!.text).toBe(text!.text);
  expect(lists.map(({ choices }) => choices.map(({ index }) => index))).toEqual([[0], [0, 1], [0, 1]]);
  expect((await complete({ max_tokens: undefined })).usage!.completion_tokens).toBe(16);
});

test('n choices of several prompts share one index space and seeds differ by choice', async () => {
  const { complete } = await served();
  const body = { prompt: ['Once', 'Twice'], n: 3, temperature: 2, seed: 7 };
  const answer = await complete(body);
  expect(answer.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect((await complete(body)).choices).toEqual(answer.choices);
  expect(answer.usage).toMatchObject({ completion_tokens: 72 });
  expect(ours(answer).metrics).toMatchObject({ generated_tokens: 72, choices: [{ index: 0 }, { index: 1 }, { index: 2 }, { index: 3 }, { index: 4 }, { index: 5 }] });
});

test('log-probabilities of a chat fit its text, and alternatives are as many as asked', async () => {
  const { chat } = await served();
  const { choices: [choice] } = await chat({ logprobs: true, top_logprobs: 3 });
  const content = choice!.logprobs!.content!;
  expect(content).toHaveLength(12);
  expect(Buffer.from(content.flatMap(({ bytes }) => bytes!)).toString()).toBe(choice!.message.content);
  expect(content.every(({ top_logprobs, logprob }) => top_logprobs.length === 3 && logprob <= 0)).toBe(true);
});

test('echo with log-probabilities covers the prompt, with offsets into the text', async () => {
  const { complete } = await served();
  const prompt = 'The quick brown fox';
  const { choices: [choice] } = await complete({ prompt, echo: true, logprobs: 2 });
  const { tokens, token_logprobs, text_offset, top_logprobs } = choice!.logprobs!;
  expect(choice!.text.startsWith(prompt)).toBe(true);
  expect(tokens!.join('')).toBe(choice!.text);
  expect(token_logprobs![0]).toBeNull();
  expect(top_logprobs![0]).toBeNull();
  expect(token_logprobs!.slice(1).every((logprob) => typeof logprob === 'number')).toBe(true);
  tokens!.forEach((token, i) => { expect(choice!.text.slice(text_offset![i], text_offset![i]! + token.length)).toBe(token); });
  expect(tokens).toHaveLength(tokenizer.encode(prompt, { special: 'parse' }).length + 12);
});

test('echoed log-probabilities may begin within the prompt', async () => {
  const { complete } = await served();
  const asked = { prompt: 'The quick brown fox', echo: true, logprobs: 2 };
  const { choices: [whole] } = await complete(asked);
  const { logprobs: all, text } = whole!;
  const numPrompt = all!.tokens!.length - 12;
  for (const start of [0, 1, 2, numPrompt, 1000]) {
    const { choices: [choice] } = await complete({ ...asked, logprob_start_len: start });
    expect(choice!.text).toBe(text);
    const from = Math.min(start, numPrompt);
    expect(choice!.logprobs).toEqual({
      tokens: all!.tokens!.slice(from), token_logprobs: all!.token_logprobs!.slice(from), top_logprobs: all!.top_logprobs!.slice(from), text_offset: all!.text_offset!.slice(from),
    });
  }
  await expect(complete({ ...asked, logprob_start_len: -1 })).rejects.toMatchObject({ status: 400, param: 'logprob_start_len' });
});

test('echo with max_tokens 0 scores a prompt and generates nothing', async () => {
  const { complete } = await served();
  const answer = await complete({ prompt: 'The quick brown fox', echo: true, logprobs: 0, max_tokens: 0 });
  expect(answer.choices[0]!.text).toBe('The quick brown fox');
  expect(answer.choices[0]!.logprobs!.tokens!.join('')).toBe('The quick brown fox');
  expect(answer.usage!.completion_tokens).toBe(0);
});

test('an echoed stream begins with the prompt', async () => {
  const { client, complete } = await served();
  const whole = await complete({ echo: true });
  let text = '';
  for await (const chunk of await client.completions.create({ model: MODEL, prompt: 'Once', temperature: 0, max_tokens: 12, echo: true, stream: true })) text += chunk.choices[0]!.text;
  expect(text).toBe(whole.choices[0]!.text);
});

test('a stop string across token borders ends the text and the sequence', async () => {
  const state = await served();
  const full = (await state.chat({ max_completion_tokens: 200, return_token_ids: true })).choices[0]!;
  const ids = extra(full).token_ids;
  const [left, right] = [decode(ids.slice(0, 4)), decode(ids.slice(0, 5))];
  const stop = right.slice(left.length - 1, left.length + 1);
  const { choices: [choice] } = await state.chat({ max_completion_tokens: 200, stop: ['not in there', stop] });
  expect(choice!.message.content).toBe(full.message.content!.slice(0, full.message.content!.indexOf(stop)));
  expect(choice).toMatchObject({ finish_reason: 'stop', stop_reason: stop });
  await expect.poll(() => isIdle(state)).toBe(true);
});

test('an end-of-text token stops, ignore_eos and min_tokens go past it', async () => {
  const { chat } = await served({ stop: { token: 2, share: 0.2 } });
  const { choices: [choice], usage } = await chat({ max_completion_tokens: 300, return_token_ids: true });
  expect(choice).toMatchObject({ finish_reason: 'stop', stop_reason: null });
  expect(extra(choice).token_ids.at(-1)).toBe(2);
  expect(usage!.completion_tokens).toBe(extra(choice).token_ids.length);
  expect((await chat({ max_completion_tokens: 300, ignore_eos: true })).usage!.completion_tokens).toBe(300);
  expect((await chat({ max_completion_tokens: 300, min_tokens: 200 })).usage!.completion_tokens).toBeGreaterThanOrEqual(200);
});

test('a stop token of the request is the stop reason', async () => {
  const { complete } = await served();
  const ids = extra((await complete({ return_token_ids: true })).choices[0]).token_ids;
  const { choices: [choice] } = await complete({ stop_token_ids: [ids[3]!] });
  expect(choice).toMatchObject({ finish_reason: 'stop', stop_reason: ids[3], text: decode(ids.slice(0, 3)) });
});

test('a second request finds the first one\'s prompt in the cache, another salt does not', async () => {
  const { complete } = await served();
  const prompt = Array.from({ length: 300 }, (_, i) => 100 + (i % 50));
  const cached = async (body: object) => (await complete({ prompt, ...body })).usage!.prompt_tokens_details!.cached_tokens;
  expect(await cached({})).toBe(0);
  expect(await cached({})).toBe(256);
  expect(await cached({ cache_salt: 'mine' })).toBe(0);
});

test('long_context chooses the policy, and the answer says what was applied', async () => {
  const { complete } = await served();
  const prompt = Array.from({ length: 2000 }, (_, i) => 100 + i);
  const policy = async (long_context: object) => ours(await complete({ prompt, long_context })).metrics;
  expect(await policy({ attention: 'lserve', token_budget: 500 })).toMatchObject({
    exactness: 'approximate', attention: { attention: 'lserve', token_budget: 512, selection_interval: 1 },
  });
  expect(await policy({ attention: 'lserve', token_budget: 4000 })).toMatchObject({ exactness: 'exact' });
  const streaming = await policy({ attention: 'streaming', sink_tokens: 64, local_tokens: 128 });
  expect(streaming).toMatchObject({ exactness: 'approximate', attention: { attention: 'streaming', sink_tokens: 64 } });
  expect(streaming['attended_tokens_per_step']).toBeLessThan(400);
});

test('streaming attention generates past the model\'s context', async () => {
  const { complete } = await served({ contextLength: 32_768, pages: 64 });
  const answer = await complete({ prompt: [5, 6, 7], max_tokens: 40_000, long_context: { attention: 'streaming', sink_tokens: 64, local_tokens: 64 } });
  expect(answer.usage!.completion_tokens).toBe(40_000);
});

test('every error is the client\'s own class, with code, param and request id', async () => {
  const { client, chat, engine } = await served({}, ['--max-queued-requests', '1']);
  await expect(chat({ temperature: 3 })).rejects.toMatchObject({ constructor: OpenAI.BadRequestError, code: 'decimal_above_max_value', param: 'temperature' });
  await expect(chat({ max_completion_tokens: 50_000 })).rejects.toMatchObject({ constructor: OpenAI.BadRequestError, code: 'context_length_exceeded', type: 'invalid_request_error' });
  await expect(chat({ model: 'no' })).rejects.toMatchObject({ constructor: OpenAI.NotFoundError, code: 'model_not_found' });
  await expect(client.completions.create({ model: MODEL, prompt: '' })).rejects.toBeInstanceOf(OpenAI.BadRequestError);
  await expect(chat({ stream_options: {} })).rejects.toHaveProperty('requestID', expect.stringMatching(/^req_/));
  Object.defineProperty(engine, 'queued', { value: { requests: 1, tokens: 1 } });
  await expect(chat({})).rejects.toMatchObject({ constructor: OpenAI.RateLimitError, code: 'queue_full' });
  await engine.close();
  await expect(chat({})).rejects.toBeInstanceOf(OpenAI.InternalServerError);
});

test('wrong keys and missing ones are authentication errors', async () => {
  const { client, baseURL } = await served({}, ['--api-keys', 'right']);
  await expect(client.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  const right = new OpenAI({ baseURL, apiKey: 'right' });
  expect((await right.chat.completions.create({ model: MODEL, messages, max_completion_tokens: 2 })).usage!.completion_tokens).toBe(2);
});

test('leaving a stream gives the pages back', async () => {
  const state = await served({ stepMs: 1 });
  const stream = await state.client.chat.completions.create({ model: MODEL, messages, max_completion_tokens: 20_000, stream: true });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  await expect.poll(() => isIdle(state)).toBe(true);
  expect((await state.chat({})).usage!.completion_tokens).toBe(12);
});

test('aborting a plain request gives the pages back', async () => {
  const state = await served({ stepMs: 1 });
  const abort = new AbortController();
  const answer = state.client.chat.completions.create({ model: MODEL, messages, max_completion_tokens: 20_000 }, { signal: abort.signal });
  await expect.poll(() => state.engine.gauges.runningSequences).toBe(1);
  abort.abort();
  await expect(answer).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
  await expect.poll(() => isIdle(state)).toBe(true);
});

test('200 streams cancelled in mid-generation leave nothing behind', async () => {
  const state = await served({ stepMs: 1, pages: 4096 });
  const streams = await Promise.all(Array.from({ length: 200 }, (_, i) => state.client.completions.create({
    model: MODEL, prompt: `Story ${i}`, max_tokens: 10_000, stream: true,
  })));
  await Promise.all(streams.map(async (stream) => {
    for await (const chunk of stream) if (chunk.choices[0]!.text !== '') break;
  }));
  await expect.poll(() => isIdle(state), { timeout: 2000 }).toBe(true);
  expect((await state.complete({})).usage!.completion_tokens).toBe(12);
});

test('an engine that dies ends a stream with an error that the client throws', async () => {
  const { client, engine } = await served({ stepMs: 1 });
  const stream = await client.chat.completions.create({ model: MODEL, messages, max_completion_tokens: 20_000, stream: true });
  const read = async (): Promise<void> => {
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) void engine.close();
  };
  await expect(read()).rejects.toMatchObject({ code: 'shutting_down' });
});

test('a deadline that passes is an error of its own', async () => {
  const { chat } = await served({ stepMs: 5 });
  await expect(chat({ deadline_ms: 100, max_completion_tokens: 20_000 })).rejects.toMatchObject({ status: 504, code: 'deadline_exceeded' });
});
