/**
 * Log-probabilities as the API reports them: of the model's own distribution, before temperature,
 * penalties and filters, as OpenAI and vLLM do. Pure. Called by the scheduler.
 */

import { wholeRow, type LogitRow, type RowHead } from './logit-row.ts';

export interface TokenScore {
  readonly token: number;
  readonly logprob: number;
}

/** The log-probability of `token` in a row of logits, and of the `numTop` most likely tokens, best first. */
export function scoreToken(row: LogitRow, token: number, numTop: number): TokenScore & { top: TokenScore[] } {
  return scoreFromHead(row, token, numTop) ?? scoreFromWhole(wholeRow(row), token, numTop);
}

/** null where the head has not all that is asked for. */
function scoreFromHead(row: LogitRow, token: number, numTop: number): TokenScore & { top: TokenScore[] } | null {
  if (row instanceof Float32Array) return null;
  const { tokens, logits, vocab } = row;
  const logit = logitInHead(row, token);
  if (logit === null || (numTop > tokens.length && tokens.length < vocab)) return null;
  const normaliser = logSumExpOfHead(row);
  const top: TokenScore[] = [];
  for (let i = 0; i < Math.min(numTop, tokens.length); i++) top.push({ token: tokens[i]!, logprob: logits[i]! - normaliser });
  return { token, logprob: logit - normaliser, top };
}

function logitInHead({ tokens, logits, target }: RowHead, token: number): number | null {
  if (target?.token === token) return target.logit;
  const at = tokens.indexOf(token);
  return at < 0 ? null : logits[at]!;
}

/** Of all of the row. */
function logSumExpOfHead({ logits, rest }: RowHead): number {
  const largest = logits[0]!;
  let sum = rest;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - largest);
  return largest + Math.log(sum);
}

function scoreFromWhole(logits: Float32Array, token: number, numTop: number): TokenScore & { top: TokenScore[] } {
  const normaliser = logSumExp(logits);
  const score = (id: number): TokenScore => ({ token: id, logprob: logits[id]! - normaliser });
  return { ...score(token), top: largest(logits, numTop).map(score) };
}

function logSumExp(logits: Float32Array): number {
  // By index: a scored prompt comes here for every token, and callbacks and iterators take three times as long.
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > max) max = logits[i]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - max);
  return max + Math.log(sum);
}

/** Indices of the `count` largest logits, best first, the lower index of equals first. `count` is small. */
function largest(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  if (count === 0) return best;
  for (let i = 0; i < logits.length; i++) {
    if (best.length === count && !(logits[i]! > logits[best[count - 1]!]!)) continue;
    let at = best.length;
    while (at > 0 && logits[i]! > logits[best[at - 1]!]!) at--;
    best.splice(at, 0, i);
    if (best.length > count) best.pop();
  }
  return best;
}
