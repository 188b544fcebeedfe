/**
 * What candidates.ts makes of a row of logits, made of its head, where that is enough: the same tokens with the same
 * weights, in the order in which a draw passes them. Says when it is not enough. Pure but for the scratch arrays that the
 * caller lends. Called by sampler.ts.
 */
import { NEGLIGIBLE, type Candidates, type Filters } from './candidates.ts';
import type { RowHead } from './logit-row.ts';

/** The largest logits after bias and penalties; what is not in it is less than every one of them, or equal with a higher token. */
export interface AdjustedHead {
  /** Largest logit first, of equals the lower token. [n], n >= 1 */
  readonly tokens: ArrayLike<number>;
  readonly logits: ArrayLike<number>;
  /** Whether there are tokens that are not in it. */
  readonly hasMore: boolean;
  /** Sum of exp((logit - largest) / temperature) over these; null where it is not known. */
  readonly rest: number | null;
}

export function plainHead({ tokens, logits, vocab, restAtTemperature }: RowHead): AdjustedHead {
  return { tokens, logits, hasMore: tokens.length < vocab, rest: restAtTemperature };
}

/**
 * The head with other logits, none above what it was. What is now no larger than the least of before counts with the rest:
 * a token beyond the head may be larger. `isKnown`: no logit beyond it has changed. null where nothing is left.
 */
export function loweredHead({ tokens, logits, vocab, restAtTemperature }: RowHead, lowered: Float32Array, { temperature, isKnown }: { temperature: number; isKnown: boolean }): AdjustedHead | null {
  const hasMore = tokens.length < vocab;
  const edge = hasMore ? logits.at(-1)! : -Infinity;
  const order = [...lowered.keys()].filter((i) => lowered[i]! > edge).toSorted((a, b) => lowered[b]! - lowered[a]! || tokens[a]! - tokens[b]!);
  if (order.length === 0) return null;
  const largest = lowered[order[0]!]!;
  let rest = restAtTemperature * Math.exp((logits[0]! - largest) / temperature);
  for (const logit of lowered) if (logit <= edge) rest += Math.exp((logit - largest) / temperature);
  return { tokens: order.map((i) => tokens[i]!), logits: order.map((i) => lowered[i]!), hasMore: hasMore || order.length < tokens.length, rest: isKnown ? rest : null };
}

/**
 * Fills `target` as filterCandidates does, heaviest first. -> weight of the candidates that are not in the head, counted in
 * the total: 0 where the filters keep none of them; null where the head does not tell.
 */
export function filterHead({ tokens, logits, hasMore, rest }: AdjustedHead, filters: Filters, target: Candidates): number | null {
  const { temperature, topK, topP, minP } = filters;
  const floor = logits[0]! + temperature * Math.max(NEGLIGIBLE, Math.log(minP));
  target.count = 0;
  target.total = 0;
  for (let i = 0; i < tokens.length && logits[i]! >= floor; i++) {
    const weight = Math.exp((logits[i]! - logits[0]!) / temperature);
    // Weights that rounding makes equal are drawn in the order of their tokens.
    if (i > 0 && weight === target.weights[i - 1] && logits[i] !== logits[i - 1]) return null;
    target.tokens[i] = tokens[i]!;
    target.weights[i] = weight;
    target.count++;
    target.total += weight;
  }
  let outside = target.count < tokens.length || !hasMore ? 0 : Math.log(minP) > NEGLIGIBLE ? null : rest;
  if (topK > 0) {
    if (topK <= target.count) outside = 0;
    else if (outside !== 0) return null;
    cut(target, { maxCount: topK, mass: Infinity });
  }
  if (outside === null) return null;
  target.total += outside;
  if (topP === 1) return outside;
  const mass = topP * target.total;
  const kept = cut(target, { maxCount: target.count, mass });
  return outside === 0 || kept >= mass ? 0 : null;
}

/** The candidate at which the running sum passes `share` of the total; null where that is one that is not in the head. */
export function drawFromHead({ tokens, weights, count, total }: Candidates, { share, outside }: { share: number; outside: number }): number | null {
  let left = share * total;
  for (let i = 0; i < count; i++) {
    left -= weights[i]!;
    if (left < 0) return tokens[i]!;
  }
  return outside > 0 ? null : tokens[count - 1]!;
}

/** Keeps the first candidates: no more than `maxCount`, and no more than reach `mass`. -> their weight */
function cut(target: Candidates, { maxCount, mass }: { maxCount: number; mass: number }): number {
  let kept = 0;
  let count = 0;
  while (count < Math.min(maxCount, target.count) && (count === 0 || kept < mass)) kept += target.weights[count++]!;
  target.count = count;
  target.total = kept;
  return kept;
}
