/**
 * Log-probabilities as the API reports them: of the model's own distribution, before temperature,
 * penalties and filters, as OpenAI and vLLM do. Pure. Called by the scheduler.
 */

export interface TokenScore {
  readonly token: number;
  readonly logprob: number;
}

/** The log-probability of `token` in a row of logits, and of the `numTop` most likely tokens, best first. */
export function scoreToken(logits: Float32Array, token: number, numTop: number): TokenScore & { top: TokenScore[] } {
  const normaliser = logSumExp(logits);
  const score = (id: number): TokenScore => ({ token: id, logprob: logits[id]! - normaliser });
  return { ...score(token), top: largest(logits, numTop).map(score) };
}

function logSumExp(logits: Float32Array): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
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
