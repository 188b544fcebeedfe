/**
 * How long a prompt and its answer may be. Pure. Knows the model's context and the KV memory as numbers. Called by
 * generate.ts once a prompt is tokenised. The wording is OpenAI's: tools read the numbers out of it.
 */
import { MAX_TOKENS } from '../../routes/schemas.ts';
import { apiError } from '../errors.ts';
import type { AttentionSettings } from './attention.ts';

export interface LengthQuestion {
  readonly promptTokens: number;
  /** null: as many as the context leaves. */
  readonly maxTokens: number | null;
  readonly attention: Pick<AttentionSettings, 'attention' | 'streamingHeads'>;
  readonly contextLength: number;
  readonly kvTokens: number;
  /** What the prompt is called in messages to the client, and the parameter it came in. */
  readonly noun: 'messages' | 'prompt';
}

/** Given to a streaming request that names no limit and whose prompt fills the context. */
const STREAMING_DEFAULT_TOKENS = 1024;

/**
 * Tokens that each choice may have. Streaming attention reads a constant number of tokens, so that its texts may be
 * longer than the context. Throws context_length_exceeded, kv_capacity or invalid_value (empty prompt).
 */
export function checkedMaxTokens(question: LengthQuestion): number {
  const { promptTokens, attention: { attention }, contextLength, noun } = question;
  if (promptTokens === 0) throw apiError('invalid_value', { param: noun, reason: 'it has no tokens.' });
  if (attention === 'streaming') return endless(question);
  const maxTokens = within(question, contextLength, Math.max(contextLength - promptTokens, 1));
  checkKvCapacity(question);
  return maxTokens;
}

/** Prompt and answer are bounded each for itself: by what their parameters may hold. */
function endless(question: LengthQuestion): number {
  const { promptTokens, maxTokens, contextLength } = question;
  checkPrompt(question, MAX_TOKENS);
  return maxTokens ?? Math.max(contextLength - promptTokens, STREAMING_DEFAULT_TOKENS);
}

function within(question: LengthQuestion, limit: number, fallback: number): number {
  const { promptTokens, maxTokens, noun } = question;
  checkPrompt(question, limit);
  const answer = maxTokens ?? Math.min(fallback, MAX_TOKENS);
  if (promptTokens + answer > limit) {
    throw tooLong(noun, limit, `you requested ${promptTokens + answer} tokens (${promptTokens} in the ${noun}, ${answer} in the completion). Please reduce the length of the ${noun} or completion.`);
  }
  return answer;
}

function checkPrompt({ promptTokens, noun }: LengthQuestion, limit: number): void {
  if (promptTokens <= limit) return;
  throw tooLong(noun, limit, `your ${noun} resulted in ${promptTokens} tokens. Please reduce the length of the ${noun}.`);
}

function tooLong(param: string, limit: number, reason: string): Error {
  return apiError('context_length_exceeded', { limit, reason }, { param });
}

/** Where some heads keep a window only, the engine alone can say what fits. */
function checkKvCapacity({ promptTokens, attention, kvTokens, noun }: LengthQuestion): void {
  if (promptTokens <= kvTokens || (attention.attention === 'lserve' && attention.streamingHeads > 0)) return;
  throw apiError('kv_capacity', { reason: `the ${noun} resulted in ${promptTokens} tokens, and the KV memory holds ${kvTokens}.` }, { param: noun });
}
