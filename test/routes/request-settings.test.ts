import { expect, test } from 'vitest';
import { flagName, options, type Option } from '../../config/options.ts';
import { LongContext } from '../../routes/schemas.ts';
import { attentionSettings, appliedAttention, type AttentionDefaults, type HeadShape } from '../../server/generate/attention.ts';
import type { SpeculationDefaults } from '../../server/generate/speculation.ts';
import { checkedMaxTokens, type LengthQuestion } from '../../server/generate/limits.ts';
import { requestSettings, type SettingsContext } from '../../server/generate/settings.ts';
import { metricsObject, usage } from '../../server/generate/usage.ts';
import type { SequenceMetrics } from '../../scheduler/messages.ts';

const defaults: AttentionDefaults = {
  attention: 'dense', tokenBudget: 4096, sinkTokens: 128, streamingSinkTokens: 4, selectionPerQueryHead: false, localTokens: 1024, streamingHeads: 0, selectionInterval: 4,
  renumberPositions: false, sparsePrefill: true,
};
const drafting: SpeculationDefaults = { speculation: 'off', draftModel: '', draftTokens: 8, draftBudget: 1024, ragTokens: 4096, ragChunkTokens: 128 };

function leastOf(field: string): number | null {
  const entry = Object.entries<Option>(options).find(([name]) => flagName(name) === field.replaceAll('_', '-'));
  return entry !== undefined && 'min' in entry[1] ? entry[1].min : null;
}

const ranked: HeadShape = { layers: 4, kvHeads: 2, headOrder: Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7) };

test('tokens are rounded up to whole pages and the share of heads to whole heads', () => {
  const settings = attentionSettings({ attention: 'lserve', token_budget: 1000, sink_tokens: 1, local_tokens: 65, streaming_heads: 0.3 }, defaults, ranked);
  expect(settings).toMatchObject({ tokenBudget: 1024, sinkTokens: 64, localTokens: 128, streamingHeads: 0.25 });
  expect(appliedAttention(settings)).toMatchObject({ token_budget: 1024, sink_tokens: 64, local_tokens: 128, streaming_heads: 0.25 });
});

test('what a request leaves out is the server\'s default', () => {
  expect(attentionSettings({}, { ...defaults, attention: 'lserve' }, ranked)).toMatchObject({ attention: 'lserve', tokenBudget: 4096, selectionInterval: 4 });
  expect(attentionSettings({}, { ...defaults, renumberPositions: true }, ranked).renumberPositions).toBe(true);
  expect(attentionSettings({ renumber_positions: false }, { ...defaults, renumberPositions: true }, ranked).renumberPositions).toBe(false);
});

test('a field of the request and the option of its name have the same least value', () => {
  const bounded = Object.entries<object>(LongContext.properties).flatMap(([name, field]) => ('minimum' in field ? [[name, field.minimum]] : []));
  const withOption = bounded.filter(([name]) => name !== 'eta');
  expect(withOption).toHaveLength(9);
  expect(withOption).toEqual(withOption.map(([name]) => [name, leastOf(String(name))]));
});

test('the applied values are those that the policy reads, no others', () => {
  const applied = (attention: 'dense' | 'streaming') => appliedAttention(attentionSettings({ attention }, defaults, ranked));
  expect(applied('dense')).toEqual({ attention: 'dense' });
  expect(applied('streaming')).toEqual({ attention: 'streaming', sink_tokens: 64, local_tokens: 1024, renumber_positions: false });
});

test('streaming heads need a ranking of heads', () => {
  const unranked = { ...ranked, headOrder: null };
  expect(() => attentionSettings({ attention: 'lserve', streaming_heads: 0.5 }, defaults, unranked)).toThrow(/ranks its KV heads/);
  expect(attentionSettings({ attention: 'dense', streaming_heads: 0.5 }, defaults, unranked).attention).toBe('dense');
});

test('streaming keeps the first four tokens, in a whole page, unless it is told otherwise', () => {
  const sinks = (asked: LongContext, changes: Partial<AttentionDefaults> = {}) => attentionSettings(asked, { ...defaults, ...changes }, ranked).sinkTokens;
  expect(sinks({ attention: 'streaming' })).toBe(64);
  expect(sinks({ attention: 'streaming', sink_tokens: 128 })).toBe(128);
  expect(sinks({ attention: 'streaming' }, { streamingSinkTokens: 0 })).toBe(0);
  expect(sinks({ attention: 'lserve' })).toBe(128);
});

const context: SettingsContext = {
  config: { ...defaults, ...drafting, maxChoices: 8 },
  model: { sampling: { temperature: 0.7, topP: 0.95, topK: 5, minP: 0, repetitionPenalty: 1 }, stopTokenIds: [2, 0] },
  spec: { engine: 'fake', precision: 'int8', vocab: 100, contextLength: 1000, slidingWindow: [], kvBytesPerToken: 1, keysDependOnPromptLength: false, ...ranked },
};

test('sampling defaults are the model\'s, and top_k -1 is off', () => {
  expect(requestSettings({}, context).sampling).toMatchObject({ temperature: 0.7, topP: 0.95, topK: 5, seed: null });
  expect(requestSettings({ temperature: 0, top_k: -1, top_p: null }, context).sampling).toMatchObject({ temperature: 0, topK: 0, topP: 0.95 });
});

test('ignore_eos drops the model\'s stop tokens and keeps the request\'s', () => {
  expect(requestSettings({ stop_token_ids: [7] }, context).stopTokenIds).toEqual([2, 0, 7]);
  expect(requestSettings({ stop_token_ids: [7], ignore_eos: true }, context).stopTokenIds).toEqual([7]);
});

test('seeds of 64 bits become exact integers, small ones stay themselves', () => {
  const seedOf = (seed: number) => requestSettings({ seed }, context).sampling.seed;
  expect(seedOf(42)).toBe(42);
  expect(Number.isSafeInteger(seedOf(2 ** 62)! + 128)).toBe(true);
  expect(seedOf(-1)).not.toBe(seedOf(-2));
});

test.each([
  [{ logit_bias: { '100': 1 } }, /'100' is not a token id below 100/],
  [{ logit_bias: { the: 1 } }, /'the' is not a token id/],
  [{ stop_token_ids: [5, 100] }, /stop_token_ids\[1\]/],
  [{ n: 9 }, /Invalid 'n': integer above maximum value. Expected a value <= 8, but got 9 instead/],
  [{ stream_options: { include_usage: true } }, /stream_options/],
])('%j is refused', (body, message) => {
  expect(() => requestSettings(body, context)).toThrow(message);
});

const question: LengthQuestion = { promptTokens: 10, maxTokens: null, attention: { attention: 'dense', streamingHeads: 0 }, contextLength: 100, kvTokens: 1000, noun: 'messages' };

test('without max_tokens an answer may fill the context', () => {
  expect(checkedMaxTokens(question)).toBe(90);
});

test('a prompt that is too long is told both numbers in OpenAI\'s words', () => {
  expect(() => checkedMaxTokens({ ...question, promptTokens: 101 }))
    .toThrow("This model's maximum context length is 100 tokens. However, your messages resulted in 101 tokens. Please reduce the length of the messages.");
  expect(() => checkedMaxTokens({ ...question, maxTokens: 91 }))
    .toThrow("This model's maximum context length is 100 tokens. However, you requested 101 tokens (10 in the messages, 91 in the completion).");
  expect(() => checkedMaxTokens({ ...question, promptTokens: 100 })).toThrow('you requested 101 tokens (100 in the messages, 1 in the completion)');
});

test('sinks that have to move are bounded, others are not', () => {
  const many = { attention: 'streaming', sink_tokens: 16_385 } as const;
  expect(attentionSettings(many, defaults, ranked).sinkTokens).toBe(16_448);
  expect(() => attentionSettings({ ...many, renumber_positions: true }, defaults, ranked)).toThrow(/at most 16384 sink tokens are possible, got 16448/);
  expect(attentionSettings({ ...many, sink_tokens: 16_384, renumber_positions: true }, defaults, ranked).sinkTokens).toBe(16_384);
});

test('streaming attention may go past the context, up to its own bound', () => {
  const streaming: LengthQuestion = { ...question, attention: { attention: 'streaming', streamingHeads: 0 } };
  expect(checkedMaxTokens({ ...streaming, promptTokens: 500, maxTokens: 5_000_000 })).toBe(5_000_000);
  expect(checkedMaxTokens({ ...streaming, promptTokens: 500 })).toBeGreaterThan(0);
  expect(checkedMaxTokens({ ...streaming, promptTokens: 500, maxTokens: 10_000_000 })).toBe(10_000_000);
  expect(() => checkedMaxTokens({ ...streaming, promptTokens: 10_000_001 })).toThrow(/maximum context length is 10000000/);
});

test('a prompt that can never fit the KV memory is refused before the stream begins', () => {
  expect(() => checkedMaxTokens({ ...question, promptTokens: 50, kvTokens: 40 })).toThrow(/50 tokens, and the KV memory holds 40/);
});

test('where some heads keep a window only, the engine says what fits', () => {
  const half = { attention: 'lserve', streamingHeads: 0.5 } as const;
  expect(checkedMaxTokens({ ...question, attention: half, promptTokens: 50, kvTokens: 40 })).toBe(50);
  expect(() => checkedMaxTokens({ ...question, attention: { ...half, streamingHeads: 0 }, promptTokens: 50, kvTokens: 40 })).toThrow(/KV memory holds 40/);
});

test('an empty prompt is refused', () => {
  expect(() => checkedMaxTokens({ ...question, promptTokens: 0 })).toThrow(/messages.*no tokens/);
});

const metrics: SequenceMetrics = {
  queueMs: 1, prefillMs: 20, firstTokenMs: 21, decodeMs: 30, longestGapMs: 4, promptTokens: 100, cachedTokens: 64, computedTokens: 36,
  recomputedTokens: 0, preemptions: 0, generatedTokens: 7, attendedTokensPerStep: 50, pagesReadPerStep: 12, draftedTokens: 5, acceptedTokens: 3, speculation: null,
  exactness: 'exact', exactnessReason: null,
};

test('usage has OpenAI\'s details, always', () => {
  expect(usage({ promptTokens: 100, cachedTokens: 64, completionTokens: 7, draftedTokens: 5, acceptedTokens: 3 })).toEqual({
    prompt_tokens: 100, completion_tokens: 7, total_tokens: 107,
    prompt_tokens_details: { cached_tokens: 64 },
    completion_tokens_details: { reasoning_tokens: 0, accepted_prediction_tokens: 3, rejected_prediction_tokens: 2 },
  });
});

test('metrics of several choices are the longest times, the summed counts, the mean reads', () => {
  const other = { ...metrics, decodeMs: 50, generatedTokens: 3, attendedTokensPerStep: 150, exactness: 'approximate', exactnessReason: 'because' } as const;
  const object = metricsObject({ tokenizeMs: 2, attention: { attention: 'dense' }, speculation: { speculation: 'off' }, choices: [metrics, other] });
  expect(object).toMatchObject({
    tokenize_ms: 2, decode_ms: 50, generated_tokens: 10, attended_tokens_per_step: 100, exactness: 'approximate', exactness_reason: 'because',
    attention: { attention: 'dense' }, speculation: { speculation: 'off' }, choices: [{ index: 0, decode_ms: 30 }, { index: 1, decode_ms: 50 }],
  });
  expect(metricsObject({ tokenizeMs: 2, attention: {}, speculation: {}, choices: [metrics] })).not.toHaveProperty('choices');
});
