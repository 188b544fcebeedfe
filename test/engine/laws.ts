/**
 * What a rule of verification gives, computed from its formulas instead of sampled: the distribution of the token that
 * comes out when a token drawn from q is accepted or replaced. Called by the tests of verify.ts and of published defects.
 */
import { acceptance, residual } from '../../engine/verify.ts';
import type { SeededRandom } from '../seeded-random.ts';

export interface Rule {
  /** Probability of keeping `token`. */
  readonly accept: (token: number) => number;
  /** What a rejected token is replaced from. [vocab] */
  readonly replacement: Float64Array;
}

/** The rule of verify.ts for a target p and tokens drawn from q. */
export function ruleOf(p: Float64Array, q: Float64Array, shifted = p): Rule {
  return { accept: (token) => acceptance(shifted, q, token), replacement: residual(p, q, shifted) };
}

/** Of tokens drawn from `drawn`. -> [vocab] */
export function lawOf(drawn: Float64Array, { accept, replacement }: Rule): Float64Array {
  const rejected = drawn.reduce((sum, share, token) => sum + share * (1 - accept(token)), 0);
  return drawn.map((share, token) => share * accept(token) + rejected * replacement[token]!);
}

export function totalVariation(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, share, token) => sum + Math.abs(share - b[token]!), 0) / 2;
}

/** From nearly even to nearly certain; `zeros`: tokens that filters have removed. */
export function randomDistribution(random: SeededRandom, vocab: number, { sharpness = 1, zeros = 0 } = {}): Float64Array {
  const weights = Float64Array.from({ length: vocab }, () => (random.next() < zeros ? 0 : Math.exp(sharpness * random.normal())));
  if (weights.every((weight) => weight === 0)) weights[0] = 1;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
