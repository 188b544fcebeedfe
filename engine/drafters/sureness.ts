/**
 * How sure a model is of a token that it drafts: the probability that it gives it, in classes. What each class is worth is
 * learnt by who verifies. Pure. Called by drafters whose tokens a model proposes.
 */
import { scoreToken } from '../logprobs.ts';
import type { LogitRow } from '../logit-row.ts';

/** Least probability of each class but the first. */
const BOUNDS = [0.2, 0.4, 0.6, 0.8, 0.95];

/** Share of a model's tokens that may be accepted, by its own probability for them. */
export const MODEL_ACCEPTANCES: readonly number[] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.92];

export function surenessOf(row: LogitRow, token: number): number {
  const probability = Math.exp(scoreToken(row, token, 0).logprob);
  return BOUNDS.filter((bound) => probability >= bound).length;
}
