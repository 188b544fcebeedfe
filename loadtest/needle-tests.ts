/**
 * The two needle tests against one server: is the number in the answer, and, with question and answer
 * inside the prompt, is every digit what the model would have said. Prompts go as token ids, so their
 * lengths are exact. Called by needle.ts.
 */
import type { Client } from './client.ts';
import { assemble, partsOf, planNeedles, type TokenizedBook } from './needle-documents.ts';

/** The API's long_context object. */
export type LongContext = Readonly<Record<string, string | number>>;

export interface Target {
  readonly client: Client;
  readonly model: string;
  readonly book: TokenizedBook;
}

export interface NeedleDocument {
  /** The whole prompt, ready for the answer. [tokens] */
  readonly promptIds: readonly number[];
  readonly value: string;
}

export interface NeedleAnswer {
  readonly found: boolean;
  readonly answer: string;
  readonly answerIds: readonly number[];
}

const ANSWER_TOKENS = 48;

/** The book as the served model sees it. */
export async function tokenizeBook(client: Client, book: string): Promise<TokenizedBook> {
  const answer = await client.post('/tokenize', { prompt: book, add_special_tokens: false, return_token_strs: true });
  const { tokens, token_strs } = answer as { tokens: number[]; token_strs: string[] };
  return { ids: tokens, endsLine: token_strs.map((text) => text.endsWith('\n')) };
}

/** A document whose prompt has exactly `tokens` tokens. */
export async function buildDocument({ client, book }: Target, seed: number, tokens: number): Promise<NeedleDocument> {
  const plan = planNeedles(seed);
  const { opening, closing, sentences } = partsOf(plan);
  const [first, last, ...middle] = await Promise.all([opening, closing, ...sentences].map((text) => tokenize(client, text)));
  return { promptIds: assemble(book, plan, { opening: first!, closing: last!, sentences: middle }, tokens), value: plan.asked.value };
}

async function tokenize(client: Client, prompt: string): Promise<number[]> {
  return ((await client.post('/tokenize', { prompt, add_special_tokens: false })) as { tokens: number[] }).tokens;
}

/** Asks greedily; right when the seven digits stand in the answer. */
export async function findsNeedle(target: Target, document: NeedleDocument, longContext: LongContext): Promise<NeedleAnswer> {
  const choice = await complete(target, {
    prompt: document.promptIds, max_tokens: ANSWER_TOKENS, return_token_ids: true, long_context: longContext,
  });
  return { found: choice.text.includes(document.value), answer: choice.text, answerIds: choice.token_ids ?? [] };
}

/** The answer is part of the prompt; right when every token of the number is the most likely one at its place. */
export async function answersInPrompt(target: Target, document: NeedleDocument, { answerIds }: NeedleAnswer, longContext: LongContext): Promise<boolean> {
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
