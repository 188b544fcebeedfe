import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { loadTokenizer } from '../../tokenizer/tokenizer.ts';
import { ScriptedEngine, plainMetrics, type ScriptedRequest } from './scripted-engine.ts';
import { MODEL, folder, testbed } from './testbed.ts';

const tokenizer = await loadTokenizer(folder);
const ids = (text: string): number[] => Array.from(tokenizer.encode(text, { special: 'plain' }));
const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Token by token, one tick each, then the end. */
async function say(request: ScriptedRequest, text: string, choice = 0): Promise<void> {
  for (const token of ids(text)) {
    request.tokens([token], { choice });
    await tick();
  }
  request.finish({ choice, reason: 'stop', stopToken: tokenizer.eosId });
}

async function streamOf(body: object, answer: (request: ScriptedRequest) => void, flags: string[] = []) {
  const engine = new ScriptedEngine({ vocab: tokenizer.vocab, answer });
  const { app } = await testbed(engine, flags);
  const url = 'messages' in body ? '/v1/chat/completions' : '/v1/completions';
  const reply = await app.inject({ method: 'POST', url, payload: { model: MODEL, stream: true, ...body } });
  return { reply, engine, text: reply.body.replaceAll(/"id":"[a-z]+-[0-9a-f]{32}"/g, '"id":"ID"').replaceAll(/"created":\d+/g, '"created":0') };
}

const messages = [{ role: 'user', content: 'Hello' }];
const chatHead = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"longspan-16m","system_fingerprint":"fp_scripted_none","choices":';
const completionHead = '{"id":"ID","object":"text_completion","created":0,"model":"longspan-16m","system_fingerprint":"fp_scripted_none","choices":';

test('a chat stream is a role chunk, content chunks, a finish chunk with metrics and [DONE], byte for byte', async () => {
  const { reply, text } = await streamOf({ messages }, (request) => {
    request.start();
    void say(request, 'Go on');
  });
  const pieces = ids('Go on').map((id) => tokenizer.decode([id], { skipSpecial: true }));
  const metrics = text.slice(text.indexOf('"metrics":'), text.indexOf('\n\n', text.indexOf('"metrics":')));
  expect(reply.statusCode).toBe(200);
  expect(reply.headers).toMatchObject({ 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' });
  expect(text).toBe([
    `data: ${chatHead}[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}`,
    ...pieces.map((piece) => `data: ${chatHead}[{"index":0,"delta":{"content":${JSON.stringify(piece)}},"logprobs":null,"finish_reason":null}]}`),
    `data: ${chatHead}[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}],${metrics}`,
    'data: [DONE]', '',
  ].join('\n\n'));
  expect(metrics).toContain('"queue_ms":1,');
});

test('with include_usage every chunk says usage null and the last has usage, metrics and no choices', async () => {
  const { text } = await streamOf({ messages, stream_options: { include_usage: true } }, (request) => {
    request.start(3);
    void say(request, 'Go');
  });
  const frames = text.split('\n\n').filter((part) => part.startsWith('data: {'));
  expect(frames.slice(0, -1).every((part) => part.endsWith(',"usage":null}'))).toBe(true);
  expect(text).not.toMatch(/"metrics".*"usage":null/);
  const last = JSON.parse(frames.at(-1)!.slice(6)) as Record<string, unknown>;
  expect(last).toMatchObject({ choices: [], usage: { completion_tokens: ids('Go').length + 1, prompt_tokens_details: { cached_tokens: 3 } }, metrics: { exactness: 'exact' } });
});

test('continuous_usage_stats puts the usage so far into every chunk', async () => {
  const { text } = await streamOf({ messages, stream_options: { continuous_usage_stats: true } }, (request) => {
    request.start();
    void say(request, 'Go on');
  });
  const counts = [...text.matchAll(/"completion_tokens":(\d+)/g)].map(([, count]) => Number(count));
  expect(counts.length).toBeGreaterThan(3);
  expect(counts[0]).toBe(1);
});

test('a completion stream has no role chunk and ends each choice once, in one index space', async () => {
  const { text, engine } = await streamOf({ prompt: ['One', 'Two'], n: 2, max_tokens: 5 }, (request) => {
    request.start();
    void say(request, `p${request.request.id}a`, 0);
    void say(request, `p${request.request.id}b`, 1);
  });
  const chunks = text.split('\n\n').filter((part) => part.startsWith('data: {')).map((part) => JSON.parse(part.slice(6)) as { choices: { index: number; text: string; finish_reason: string | null }[] });
  const texts = new Map<number, string>();
  for (const { choices: [choice] } of chunks) texts.set(choice!.index, (texts.get(choice!.index) ?? '') + choice!.text);
  expect([...texts].sort(([a], [b]) => a - b)).toEqual([[0, 'p1a'], [1, 'p1b'], [2, 'p2a'], [3, 'p2b']]);
  expect(chunks.filter(({ choices: [choice] }) => choice!.finish_reason !== null)).toHaveLength(4);
  expect(text.startsWith(`data: ${completionHead}[{"index":`)).toBe(true);
  expect(engine.requests.map(({ request }) => request.choices)).toEqual([2, 2]);
});

test('what one tick brings for a choice is one chunk', async () => {
  const { text } = await streamOf({ messages }, (request) => {
    request.start();
    for (const token of ids('all in one tick')) request.tokens([token]);
    request.finish();
  });
  expect(text.match(/"content":"[^"]+"/g)).toEqual(['"content":"all in one tick"']);
});

test('a preemption is a chunk of its own where progress was asked for, and nothing elsewhere', async () => {
  const preempt = (request: ScriptedRequest): void => {
    request.push({ type: 'preempted', id: request.request.id, choice: 1 });
    for (const choice of [0, 1]) request.finish({ choice });
  };
  const chunk = `data: ${chatHead}[],"preempted":{"index":1}}\n\n`;
  expect((await streamOf({ messages, n: 2, return_progress: true }, preempt)).text).toContain(chunk);
  expect((await streamOf({ messages, n: 2 }, preempt)).text).not.toContain('preempted');
});

test('progress chunks have no choices and llama.cpp\'s numbers', async () => {
  const { text } = await streamOf({ messages, return_progress: true }, (request) => {
    request.start(64);
    request.push({ type: 'progress', id: request.request.id, total: 200, cached: 64, processed: 128, timeMs: 12.4 });
    request.finish();
  });
  expect(text).toContain(`data: ${chatHead}[],"prompt_progress":{"total":200,"cache":64,"processed":128,"time_ms":12}}\n\n`);
});

test('an error after the headers is one error frame, then [DONE]; no finish reason is made up', async () => {
  const { reply, text } = await streamOf({ messages }, (request) => {
    request.start();
    request.tokens(ids('Go'));
    setImmediate(() => { request.push({ type: 'failed', id: request.request.id, choice: 0, code: 'engine_failed', message: 'it was killed' }); });
  });
  expect(reply.statusCode).toBe(200);
  const frames = text.split('\n\n');
  expect(JSON.parse(frames.at(-3)!.slice(6))).toMatchObject({ error: { code: 'engine_failed', type: 'server_error', param: null } });
  expect(frames.slice(-2)).toEqual(['data: [DONE]', '']);
  expect(text).not.toContain('"finish_reason":"');
  expect(text).toContain('"content":"Go"');
});

test('a silent stream gets comments', async () => {
  const { text } = await streamOf({ messages }, (request) => {
    request.start();
    setTimeout(() => { request.finish(); }, 250);
  }, ['--sse-keep-alive-ms', '50']);
  expect(text.match(/^: keep-alive\n\n/gm)!.length).toBeGreaterThanOrEqual(2);
});

test('hooks\' headers reach a stream: request id and CORS', async () => {
  const engine = new ScriptedEngine({ vocab: tokenizer.vocab, answer: (request) => { request.finish(); } });
  const { app } = await testbed(engine, ['--cors-origin', '*']);
  const reply = await app.inject({
    method: 'POST', url: '/v1/chat/completions', headers: { origin: 'https://example.org', 'x-request-id': 'mine-1' },
    payload: { messages, stream: true, made_up: 1, 'ünknown': 2 },
  });
  expect(reply.headers).toMatchObject({
    'access-control-allow-origin': '*', 'x-request-id': 'mine-1', 'x-longspan-ignored-parameters': 'made_up, ?nknown',
  });
});

function rawPost(port: number, body: object): Socket {
  const text = JSON.stringify(body);
  const socket = connect(port, '127.0.0.1');
  socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  return socket;
}

test('a slow reader gets all of the text, in fewer and larger chunks', async () => {
  const words = ids(' the quick brown fox jumps over a lazy dog');
  // More frames than the sockets' own buffers hold, of far less text than may be unread.
  const numTicks = 60_000;
  const engine = new ScriptedEngine({
    vocab: tokenizer.vocab,
    answer: (request) => {
      request.start();
      let ticks = 0;
      const more = (): void => {
        request.tokens([words[ticks % words.length]!]);
        if (++ticks < numTicks) setImmediate(more);
        else request.finish();
      };
      more();
    },
  });
  const bed = await testbed(engine);
  const slow = rawPost(Number(new URL(await bed.listen()).port), { prompt: [words[0]], max_tokens: 4000, stream: true });
  slow.pause();
  await expect.poll(() => engine.requests[0]?.stream.over, { timeout: 20_000 }).toBe(true);
  let received = '';
  slow.on('data', (data) => { received += String(data); });
  slow.resume();
  await expect.poll(() => received.includes('[DONE]'), { timeout: 20_000 }).toBe(true);
  slow.destroy();
  const texts = [...received.matchAll(/"text":("(?:[^"\\]|\\.)*")/g)].map(([, text]) => JSON.parse(text!) as string);
  const tokens = Array.from({ length: numTicks }, (_, i) => words[i % words.length]!);
  expect(texts.join('')).toBe(tokenizer.decode(tokens, { skipSpecial: true }));
  expect(texts.length).toBeLessThan(numTicks);
  expect(engine.requests[0]!.cancelled).toBe(false);
});

test('a client that leaves while its prompt is tokenised is never submitted', async () => {
  const engine = new ScriptedEngine({ vocab: tokenizer.vocab, answer: (request) => { request.finish(); } });
  const bed = await testbed(engine);
  const { text } = bed.services;
  let release = (): void => undefined;
  const encoding = new Promise<void>((resolve) => { release = resolve; });
  const encodePrompt = text.encodePrompt.bind(text);
  let numStarted = 0;
  text.encodePrompt = async (...prompt) => {
    numStarted++;
    await encoding;
    return encodePrompt(...prompt);
  };
  const socket = rawPost(Number(new URL(await bed.listen()).port), { prompt: 'Hello', stream: true });
  await expect.poll(() => numStarted).toBe(1);
  socket.destroy();
  await expect.poll(() => bed.services.lifecycle.active).toBe(0);
  release();
  await tick();
  expect(engine.requests).toHaveLength(0);
  expect((await bed.app.inject({ method: 'POST', url: '/v1/completions', payload: { prompt: [5] } })).statusCode).toBe(200);
});

test('a client that reads nothing has its generation cancelled once too much is unread, and others go on', async () => {
  const word = ids(' the')[0]!;
  const batch = new Array<number>(4096).fill(word);
  const engine = new ScriptedEngine({
    vocab: tokenizer.vocab,
    answer: (request) => {
      request.start();
      if (request.request.promptIds.length === 1) return;
      const more = (): void => {
        if (request.stream.over) return;
        request.tokens(batch);
        setImmediate(more);
      };
      more();
    },
  });
  const bed = await testbed(engine);
  const port = Number(new URL(await bed.listen()).port);
  const stuck = rawPost(port, { prompt: [word, word], max_tokens: 4000, stream: true });
  stuck.pause();
  const other = rawPost(port, { prompt: [word], max_tokens: 10, stream: true });
  await expect.poll(() => engine.requests.length).toBe(2);
  const [first, second] = engine.requests as [ScriptedRequest, ScriptedRequest];
  const [unread, well] = first.request.promptIds.length === 2 ? [first, second] : [second, first];
  await expect.poll(() => unread.cancelled, { timeout: 20_000 }).toBe(true);
  expect(well.cancelled).toBe(false);
  well.finish({ metrics: plainMetrics });
  let received = '';
  other.on('data', (data) => { received += String(data); });
  await expect.poll(() => received.includes('[DONE]')).toBe(true);
  stuck.destroy();
  other.destroy();
});
