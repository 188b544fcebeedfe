/**
 * The two needle tests against one server: is the number in the answer, and, with question and answer
 * inside the prompt, is every digit what the model would have said. Prompts go as token ids, so their
 * lengths are exact. Called by needle.ts.
 */
import type { Client } from './client.ts';
import { writeNeedleDocument } from './needle-documents.ts';

/** The API's long_context object. */
export type LongContext = Readonly<Record<string, string | number>>;

export interface Target {
  readonly client: Client;
  readonly model: string;
  readonly book: string;
}

export interface FittedDocument {
  /** The templated prompt, ready for the answer. [tokens] */
  readonly promptIds: readonly number[];
  readonly value: string;
}

export interface NeedleAnswer {
  readonly found: boolean;
  readonly answer: string;
  readonly answerIds: readonly number[];
}

/** How far below the wanted length a prompt may be. */
const LENGTH_SLACK_TOKENS = 64;
const FIT_ATTEMPTS = 12;
const ANSWER_TOKENS = 48;

/** A document whose prompt has `tokens` tokens, or up to LENGTH_SLACK_TOKENS less. */
export async function fitDocument(target: Target, seed: number, tokens: number): Promise<FittedDocument> {
  let fillerChars = tokens * 4;
  for (let attempt = 0; attempt < FIT_ATTEMPTS; attempt++) {
    const document = writeNeedleDocument(target.book, seed, fillerChars);
    const promptIds = await templatedIds(target, document.content);
    const missing = tokens - promptIds.length;
    if (missing >= 0 && missing <= LENGTH_SLACK_TOKENS) return { promptIds, value: document.value };
    const charsPerToken = document.content.length / promptIds.length;
    fillerChars = Math.max(0, Math.round(fillerChars + (missing - LENGTH_SLACK_TOKENS / 2) * charsPerToken));
  }
  throw new RangeError(`no needle document of ${tokens} tokens after ${FIT_ATTEMPTS} attempts: too short for its needles?`);
}

async function templatedIds({ client, model }: Target, content: string): Promise<number[]> {
  const answer = await client.post('/tokenize', { model, messages: [{ role: 'user', content }], add_generation_prompt: true });
  return (answer as { tokens: number[] }).tokens;
}

/** Asks greedily; right when the seven digits stand in the answer. */
export async function findsNeedle(target: Target, document: FittedDocument, longContext: LongContext): Promise<NeedleAnswer> {
  const choice = await complete(target, {
    prompt: document.promptIds, max_tokens: ANSWER_TOKENS, return_token_ids: true, long_context: longContext,
  });
  return { found: choice.text.includes(document.value), answer: choice.text, answerIds: choice.token_ids ?? [] };
}

/** The answer is part of the prompt; right when every token of the number is the most likely one at its place. */
export async function answersInPrompt(target: Target, document: FittedDocument, { answerIds }: NeedleAnswer, longContext: LongContext): Promise<boolean> {
  const prompt = [...document.promptIds, ...answerIds];
  const { logprobs } = await complete(target, { prompt, max_tokens: 1, echo: true, logprobs: 1, long_context: longContext });
  if (!logprobs || logprobs.tokens.length < prompt.length) throw new Error(`echo gave ${logprobs?.tokens.length ?? 0} log-probabilities for ${prompt.length} prompt tokens`);
  return tokensOf(document.value, logprobs.tokens, document.promptIds.length, prompt.length).every((place) => isMostLikely(logprobs, place));
}

/** Places in `tokens`, within [from, to), whose text overlaps `value`. */
export function tokensOf(value: string, tokens: readonly string[], from: number, to: number): number[] {
  const start = tokens.slice(from, to).join('').indexOf(value);
  if (start === -1) throw new Error(`the answer in the prompt does not hold ${value}`);
  const places: number[] = [];
  let at = 0;
  for (let i = from; i < to; i++) {
    const end = at + tokens[i]!.length;
    if (end > start && at < start + value.length) places.push(i);
    at = end;
  }
  return places;
}

interface CompletionLogprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
}

function isMostLikely(logprobs: CompletionLogprobs, place: number): boolean {
  const own = logprobs.token_logprobs[place];
  const top = Object.values(logprobs.top_logprobs[place] ?? {});
  return own != null && top.every((other) => own >= other);
}

interface CompletionChoice {
  readonly text: string;
  readonly token_ids?: readonly number[] | null;
  readonly logprobs?: CompletionLogprobs | null;
}

async function complete({ client, model }: Target, body: object): Promise<CompletionChoice> {
  const answer = (await client.post('/v1/completions', { model, temperature: 0, ...body })) as { choices: CompletionChoice[] };
  return answer.choices[0]!;
}
