/**
 * Asks one document all its questions with one attention, or scores one stretch of text, and tells the results. The
 * first question pays for the prefill; the others find it in the prefix cache. Talks HTTP. Called by main.ts.
 */
import type { Client } from '../client.ts';
import type { LongContext } from '../needle-tests.ts';
import type { Prompt } from './build.ts';
import type { PerplexityRecord, Place, TaskRecord } from './results.ts';
import { namedIn, predictedIn, type PredictedToken } from './score.ts';

export interface Asked {
  readonly client: Client;
  readonly place: Place;
  readonly longContext: LongContext;
}

/** Tokens that an answer may have beyond those of the right one. */
const MORE_TOKENS = 16;

/** The model answers each prompt, and is shown its right answer inside the prompt. */
export async function askDocument(asked: Asked, prompts: readonly Prompt[], modes: readonly TaskRecord['mode'][]): Promise<TaskRecord[]> {
  const calls = prompts.flatMap((prompt, i) => {
    const question = prompts.slice(0, i).filter((other) => other.question.task === prompt.question.task).length;
    return modes.map((mode) => () => (mode === 'answer' ? askOne(asked, prompt, question) : showOne(asked, prompt, question)));
  });
  const [first, ...others] = calls;
  return [await first!(), ...await Promise.all(others.map((call) => call()))];
}

/** Greedily; each value that stands in the answer is one found. */
async function askOne(asked: Asked, { question: { task, values }, ids, answerIds }: Prompt, question: number): Promise<TaskRecord> {
  const { text } = await complete(asked, { prompt: ids, max_tokens: answerIds.length + MORE_TOKENS });
  const found = namedIn(text, values);
  return { ...asked.place, task, question, mode: 'answer', found, of: values.length, ...(found < values.length && { answer: text }) };
}

/** The right answer ends the prompt; each value whose tokens were all predicted is one found. */
async function showOne(asked: Asked, { question: { task, values }, ids, answerIds }: Prompt, question: number): Promise<TaskRecord> {
  const { logprobs } = await complete(asked, { prompt: [...ids, ...answerIds], max_tokens: 0, echo: true, logprobs: 1, logprob_start_len: ids.length });
  if (logprobs?.tokens.length !== answerIds.length) throw new Error(`echo gave ${logprobs?.tokens.length ?? 0} log-probabilities for ${answerIds.length} tokens`);
  const answer = logprobs.tokens.map((text, i): PredictedToken => ({ text, likeliest: likeliestOf(logprobs, i) }));
  const found = predictedIn(answer, values);
  return { ...asked.place, task, question, mode: 'inside', found, of: values.length, ...(found < values.length && { answer: answer.map(({ likeliest }) => likeliest).join('') }) };
}

/** Of the second half of a text, whose tokens have at least half of the length before them. */
export async function scoreText(asked: Asked, ids: readonly number[]): Promise<PerplexityRecord> {
  const from = Math.floor(ids.length / 2);
  const { logprobs } = await complete(asked, { prompt: ids, max_tokens: 0, echo: true, logprobs: 0, logprob_start_len: from });
  const scores = logprobs?.token_logprobs ?? [];
  if (scores.length !== ids.length - from) throw new Error(`echo gave ${scores.length} log-probabilities for ${ids.length - from} tokens`);
  const nll = scores.reduce<number>((sum, logprob) => sum - logprob!, 0);
  return { ...asked.place, task: 'perplexity', nll, of: scores.length };
}

interface CompletionLogprobs {
  readonly tokens: readonly string[];
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
}

function likeliestOf({ tokens, token_logprobs, top_logprobs }: CompletionLogprobs, i: number): string {
  const others: [string, number][] = Object.entries(top_logprobs[i] ?? {});
  return others.reduce((best, other) => (other[1] > best[1] ? other : best), [tokens[i]!, token_logprobs[i]!])[0];
}

interface Choice {
  readonly text: string;
  readonly logprobs?: CompletionLogprobs | null;
}

async function complete({ client, place, longContext }: Asked, body: object): Promise<Choice> {
  const answer = await client.post('/v1/completions', { model: place.model, temperature: 0, long_context: longContext, ...body });
  return (answer as { choices: Choice[] }).choices[0]!;
}
