/**
 * The one rule by which a drafted token is kept or replaced, at every level of drafting: accept x, drawn from q, with
 * probability min(1, p(x) / q(x)); else draw from the rest of p that q does not cover. What comes out has the
 * distribution p, whatever q is (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). Greedy needs no
 * case of its own: p is one token. Knows rows of logits and samplers, no engine. Called by the scheduler's commit for
 * the target, and by drafters that verify another drafter's tokens.
 */
import { shiftTowards } from './knowledge-transfer.ts';
import type { LogitRow } from './logit-row.ts';
import type { Sampler } from './sampler.ts';

/** A token and the distribution it was drawn from; null when there is none: the whole mass is on the token. */
export interface DraftedToken {
  readonly token: number;
  /** [vocab] */
  readonly distribution: Float64Array | null;
}

export interface Verdict {
  /** The drafted token, or the one in its place. */
  readonly token: number;
  readonly accepted: boolean;
}

/**
 * Verifies one token against the target's row of logits. [vocab]. The sampler stands at the row; the caller lets it
 * accept the verdict's token. eta > 0 is RAPID's knowledge transfer, which gives up the distribution p.
 */
export function verify(row: LogitRow, drafted: DraftedToken, sampler: Sampler, eta = 0): Verdict {
  if (drafted.distribution === null) return verifyPoint(row, drafted.token, sampler);
  const p = sampler.distribution(row);
  const q = drafted.distribution;
  const rule = eta === 0 ? p : shiftTowards(p, q, eta);
  if (sampler.uniform() < acceptance(rule, q, drafted.token)) return { token: drafted.token, accepted: true };
  return { token: draw(residual(p, q, rule), sampler.uniform()), accepted: false };
}

/**
 * A token without a distribution is accepted with probability p(x), and p without x is what is left: both at once is to
 * draw from p and compare. So it takes the numbers that plain decoding takes, and a seed gives the text it always gives.
 */
function verifyPoint(row: LogitRow, drafted: number, sampler: Sampler): Verdict {
  const token = sampler.sample(row);
  return { token, accepted: token === drafted };
}

/** Draws a token of a draft and says from which distribution; null where verification needs none. [vocab] */
export function drawDraft(row: LogitRow, sampler: Sampler): DraftedToken {
  if (sampler.isForeseen) return { token: sampler.sample(row), distribution: null };
  const distribution = sampler.distribution(row);
  return { token: draw(distribution, sampler.uniform()), distribution };
}

/** Probability of keeping `token` that was drawn from q. p, q: [vocab] */
export function acceptance(p: Float64Array, q: Float64Array, token: number): number {
  return p[token]! >= q[token]! ? 1 : p[token]! / q[token]!;
}

/**
 * What a rejected token is replaced from: norm(max(p - q, 0)), and p itself where nothing of it is left (which only
 * rounding can bring about). `rule`: what tokens were accepted by, if that is not p. -> [vocab]
 */
export function residual(p: Float64Array, q: Float64Array, rule = p): Float64Array {
  let mass = 0;
  const rest = p.map((probability, token) => {
    const left = Math.max(probability - q[token]!, probability - rule[token]!, 0);
    mass += left;
    return left;
  });
  return mass > 0 ? rest.map((left) => left / mass) : p;
}

/** The token at which the running sum passes `share`; 0 <= share < 1. */
function draw(distribution: Float64Array, share: number): number {
  let rest = share;
  let last = 0;
  for (let token = 0; token < distribution.length; token++) {
    const probability = distribution[token]!;
    if (probability === 0) continue;
    rest -= probability;
    if (rest < 0) return token;
    last = token;
  }
  return last;
}
