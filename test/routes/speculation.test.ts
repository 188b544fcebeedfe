// What requests ask of drafting, as the engine is sent it, and what the answer tells of it, over a scripted engine.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { packagePath } from '../../server/package.ts';
import { createServices } from '../../server/create-services.ts';
import { loadConfig } from '../../config/load.ts';
import type { SpeculationMetrics } from '../../scheduler/messages.ts';
import { ScriptedEngine, plainMetrics, type ScriptedRequest } from './scripted-engine.ts';
import { testbed } from './testbed.ts';

interface Reply {
  readonly usage: { readonly completion_tokens_details: object };
  readonly metrics: { readonly speculation: Record<string, unknown>; readonly drafted_tokens: number };
}

const did = (speculation: SpeculationMetrics | null) => (request: ScriptedRequest): void => {
  const totals = speculation?.levels.at(-1) ?? { draftedTokens: 0, acceptedTokens: 0 };
  for (let choice = 0; choice < request.request.choices; choice++) {
    request.finish({ choice, metrics: { ...plainMetrics, draftedTokens: totals.draftedTokens, acceptedTokens: totals.acceptedTokens, speculation } });
  }
};

const verified: SpeculationMetrics = {
  verifiedPasses: 5, plainPasses: 1, offReason: null,
  levels: [{ level: 'ngram', draftedTokens: 40, acceptedTokens: 30 }, { level: 'middle', draftedTokens: 20, acceptedTokens: 15 }],
};

async function bench(answer: (request: ScriptedRequest) => void, flags: string[] = []) {
  const engine = new ScriptedEngine({ vocab: 8192, answer });
  const { app, services } = await testbed(engine, flags);
  const post = async (url: string, payload: object): Promise<Reply> => {
    const reply = await app.inject({ method: 'POST', url, payload });
    expect(reply.statusCode, reply.body).toBe(200);
    return reply.json();
  };
  const chat = (content: string, longContext: object, more: object = {}) =>
    post('/v1/chat/completions', { messages: [{ role: 'user', content }], long_context: longContext, max_tokens: 5, ...more });
  return { engine, services, post, chat, sent: () => engine.requests.at(-1)!.request };
}

const document = readFileSync(packagePath('docs/examples/the-time-machine.txt'), 'utf8').slice(0, 10_000);
const question = 'What did the Psychologist say about the fourth dimension?';

test('what is asked goes to the engine, and what was done stands in the answer', async () => {
  const { chat, sent } = await bench(did(verified));
  const reply = await chat('Hello', { speculation: 'triforce', draft_tokens: 6, draft_budget: 1000, draft_level: 'ngram' });
  expect(sent().speculation).toMatchObject({ speculation: 'triforce', draftTokens: 6, draftBudget: 1024, draftLevel: 'ngram', eta: 0, force: false });
  expect(reply.metrics.speculation).toEqual({
    speculation: 'triforce', draft_tokens: 6, draft_budget: 1024, draft_level: 'ngram', force_speculation: false,
    verified_passes: 5, plain_passes: 1, off_reason: null,
    levels: [
      { level: 'ngram', drafted_tokens: 40, accepted_tokens: 30, acceptance_rate: 0.75 },
      { level: 'middle', drafted_tokens: 20, accepted_tokens: 15, acceptance_rate: 0.75 },
    ],
  });
  expect(reply.usage.completion_tokens_details).toMatchObject({ accepted_prediction_tokens: 15, rejected_prediction_tokens: 5 });
});

test('several choices are counted together', async () => {
  const { chat } = await bench(did(verified));
  const reply = await chat('Hello', { speculation: 'ngram' }, { n: 2 });
  expect(reply.metrics.speculation).toMatchObject({ verified_passes: 10, plain_passes: 2, levels: [{ drafted_tokens: 80, accepted_tokens: 60 }, { drafted_tokens: 40 }] });
});

test('nothing is asked unless a request or the server asks it', async () => {
  const { chat, sent } = await bench(did(null));
  expect((await chat('Hello', {})).metrics.speculation).toEqual({ speculation: 'off' });
  expect(sent().speculation).toMatchObject({ speculation: 'off' });
  const byDefault = await bench(did(verified), ['--speculation', 'ngram', '--draft-tokens', '3']);
  expect((await byDefault.chat('Hello', {})).metrics.speculation).toMatchObject({ speculation: 'ngram', draft_tokens: 3 });
  expect((await byDefault.chat('Hello', { speculation: 'off' })).metrics.speculation).toEqual({ speculation: 'off' });
});

test('a default that does not fit the request drafts nothing, and the answer says why', async () => {
  const { chat, post, sent } = await bench(did(null), ['--speculation', 'triforce']);
  const reply = await chat('Hello', { attention: 'lserve' });
  expect(reply.metrics.speculation).toMatchObject({ speculation: 'triforce', off_reason: expect.stringContaining("needs attention 'dense'") as string });
  expect(sent().speculation.speculation).toBe('off');
  const rapid = await bench(did(null), ['--speculation', 'rapid']);
  expect((await rapid.post('/v1/completions', { prompt: 'Hello' })).metrics.speculation).toMatchObject({ off_reason: expect.stringContaining('long_context.documents') as string });
  expect((await post('/v1/completions', { prompt: 'Hello' })).metrics.speculation).toMatchObject({ off_reason: 'this engine does not draft' });
});

test('an engine that does not draft is not said to have drafted', async () => {
  const { chat } = await bench(did(null));
  expect((await chat('Hello', { speculation: 'ngram' })).metrics.speculation).toMatchObject({ verified_passes: 0, plain_passes: 0, levels: [], off_reason: 'this engine does not draft' });
});

test('options that contradict each other end the start with a sentence', async () => {
  const start = (...argv: string[]) => createServices(loadConfig({ argv, env: {} }), new ScriptedEngine({ vocab: 8192, answer: did(null) }));
  await expect(start('--speculation', 'triforce', '--attention', 'lserve')).rejects.toThrow(/'triforce' needs attention 'dense'/);
  await expect(start('--rag-tokens', '256', '--rag-chunk-tokens', '512')).rejects.toThrow(/--rag-chunk-tokens 512 is more than --rag-tokens 256/);
});

test('rapid sends the drafter a prompt of its own, retrieved once, and tells what it holds', async () => {
  const { chat, sent, services } = await bench(did(verified));
  const reply = await chat(`${document}\n\n${question}`, { speculation: 'rapid', draft_level: 'none', rag_tokens: 256, rag_chunk_tokens: 32, eta: 2 }, { n: 2 });
  const { draftPromptIds, draftLevel, eta } = sent().speculation;
  const text = services.text.tokenizer.decode(draftPromptIds, { skipSpecial: false });
  expect(text.endsWith(`\n\n${question}<|im_end|>\n<|im_start|>assistant\n`)).toBe(true);
  expect(text).toContain('interrupted the Psychologist');
  expect(draftPromptIds.length).toBeLessThan(256 + 64);
  expect([eta, draftLevel]).toEqual([2, 'none']);
  expect(reply.metrics.speculation).toMatchObject({
    speculation: 'rapid', draft_level: 'none', rag_tokens: 256, rag_chunk_tokens: 32, eta: 2, off_reason: null,
    retrieval: { ranked_by: 'bm25', question_from: 'last paragraph', documents_from: 'conversation' },
  });
  const { chunks, chunks_of: chunksOf, tokens, ms } = reply.metrics.speculation['retrieval'] as Record<string, number>;
  expect(tokens).toBeLessThanOrEqual(256);
  expect(chunks).toBeGreaterThanOrEqual(8);
  expect(chunksOf).toBeGreaterThan(chunks!);
  expect(ms).toBeGreaterThan(0);
});

test('rapid on a raw prompt reads the documents and the question that it is given', async () => {
  const { post, sent, services } = await bench(did(verified));
  const given = { documents: [document], question };
  const reply = await post('/v1/completions', { prompt: `${document}\n\n${question}`, long_context: { speculation: 'rapid', rag_tokens: 256, ...given } });
  const text = services.text.tokenizer.decode(sent().speculation.draftPromptIds, { skipSpecial: false });
  expect(text.endsWith(`\n\n${question}`)).toBe(true);
  expect(reply.metrics.speculation).toMatchObject({ off_reason: null, retrieval: { question_from: 'request', documents_from: 'request' } });
});

test('a prompt of at most twice the budget is decoded without rapid', async () => {
  const { chat, sent } = await bench(did(null));
  const reply = await chat(`${document.slice(0, 1000)}\n\n${question}`, { speculation: 'rapid', rag_tokens: 256 });
  expect(reply.metrics.speculation).toMatchObject({ off_reason: expect.stringMatching(/^the prompt has \d+ tokens.*\(256\)$/) as string });
  expect(reply.metrics.speculation).not.toHaveProperty('retrieval');
  expect(sent().speculation.speculation).toBe('off');
});

test('documents that the prompt cannot hold are refused', async () => {
  const engine = new ScriptedEngine({ vocab: 8192, answer: did(null) });
  const { app } = await testbed(engine);
  const reply = await app.inject({ method: 'POST', url: '/v1/chat/completions', payload: {
    messages: [{ role: 'user', content: document }], long_context: { speculation: 'rapid', rag_tokens: 256, documents: [document.repeat(30)] },
  } });
  expect(reply.statusCode).toBe(400);
  expect(reply.json()).toMatchObject({ error: { code: 'invalid_value', param: 'long_context.documents' } });
  expect(engine.requests).toHaveLength(0);
});
