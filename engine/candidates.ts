/**
 * The tokens that a draw may choose from, with their weights: a row of logits after temperature and
 * filters. Nothing here sorts the vocabulary: what the filters keep is popped off a heap. Pure but for the
 * scratch arrays that the caller lends. Called by sampler.ts; from the head of a row the same is done by head-candidates.ts.
 */
import { HEAD_TOKENS } from './logit-row.ts';

/** Parallel arrays; the first `count` entries are valid. */
export interface Candidates {
  /** Token ids. [vocab] */
  readonly tokens: Int32Array;
  /** exp((logit - largest logit) / temperature). [vocab] */
  readonly weights: Float64Array;
  count: number;
  /** Sum of the weights. */
  total: number;
}

export interface Filters {
  /** Above 0. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  readonly minP: number;
}

/** exp(-60) is 1e-26: what lies below the largest logit by more could not change a sum of doubles. */
export const NEGLIGIBLE = -60;

export function newCandidates(vocab: number): Candidates {
  return { tokens: new Int32Array(vocab), weights: new Float64Array(vocab), count: 0, total: 0 };
}

/** Fills `target` from a row of logits in vLLM's order: temperature, min-p, top-k, top-p. */
export function filterCandidates(logits: Float32Array, filters: Filters, target: Candidates): Candidates {
  collect(logits, filters, target);
  if (filters.topK > 0 && filters.topK < target.count) keepLargest(target, { maxCount: filters.topK, mass: Infinity });
  if (filters.topP < 1) keepLargest(target, { maxCount: target.count, mass: filters.topP * target.total });
  return target;
}

/**
 * The candidate at which the running sum of weights passes `share` of the total; 0 <= share < 1. The HEAD_TOKENS heaviest
 * come first, heaviest first, so that a draw seldom needs more of a row than its head. Changes their order.
 */
export function drawCandidate(candidates: Candidates, share: number): number {
  const { tokens, weights, count, total } = candidates;
  leadWithHeaviest(candidates);
  let left = share * total;
  for (let i = 0; i < count; i++) {
    left -= weights[i]!;
    if (left < 0) return tokens[i]!;
  }
  return tokens[count - 1]!;
}

/** Index of the largest logit, the first of equals. Throws on a row without one: the engine computed rubbish. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let largest = -Infinity;
  for (let quad = 0; quad < logits.length; quad += 4) {
    // Few logits are a new maximum, so four are passed over at a time. Past the end undefined compares false.
    if (!(logits[quad]! > largest || logits[quad + 1]! > largest || logits[quad + 2]! > largest || logits[quad + 3]! > largest)) continue;
    for (let i = quad; i < quad + 4; i++) {
      if (!(logits[i]! > largest)) continue;
      largest = logits[i]!;
      best = i;
    }
  }
  if (!Number.isFinite(largest)) throw new Error(`largest of ${logits.length} logits is ${largest}, expected a finite number`);
  return best;
}

/** min-p is a bound on the logit: p >= minP * pMax where (logit - max) / temperature >= ln(minP). */
function collect(logits: Float32Array, { temperature, minP }: Filters, target: Candidates): void {
  const largest = logits[argmax(logits)]!;
  const floor = largest + temperature * Math.max(NEGLIGIBLE, Math.log(minP));
  target.count = 0;
  target.total = 0;
  for (let quad = 0; quad < logits.length; quad += 4) {
    if (!(logits[quad]! >= floor || logits[quad + 1]! >= floor || logits[quad + 2]! >= floor || logits[quad + 3]! >= floor)) continue;
    for (let i = quad; i < quad + 4; i++) {
      if (logits[i]! >= floor) add(target, i, Math.exp((logits[i]! - largest) / temperature));
    }
  }
}

function add(target: Candidates, token: number, weight: number): void {
  target.tokens[target.count] = token;
  target.weights[target.count++] = weight;
  target.total += weight;
}

/** Keeps the heaviest candidates, largest first: no more than `maxCount`, and no more than reach `mass`. */
function keepLargest(candidates: Candidates, limit: { maxCount: number; mass: number }): void {
  const { tokens, weights } = candidates;
  for (let i = (candidates.count >>> 1) - 1; i >= 0; i--) sift(candidates, i, candidates.count);

  // The heap shrinks from its end, and what is popped takes the place that falls free:
  //   [ heap ............ | third | second | largest ]
  let heapSize = candidates.count;
  let kept = 0;
  while (heapSize > 0 && candidates.count - heapSize < limit.maxCount && (heapSize === candidates.count || kept < limit.mass)) {
    kept += weights[0]!;
    swap(candidates, 0, --heapSize);
    sift(candidates, 0, heapSize);
  }
  tokens.subarray(heapSize, candidates.count).reverse();
  weights.subarray(heapSize, candidates.count).reverse();
  tokens.copyWithin(0, heapSize, candidates.count);
  weights.copyWithin(0, heapSize, candidates.count);
  candidates.count -= heapSize;
  candidates.total = kept;
}

/** The first HEAD_TOKENS candidates become the heaviest ones, heaviest first. A heap with the lightest of them on top finds them. */
function leadWithHeaviest(candidates: Candidates): void {
  const { weights } = candidates;
  const size = Math.min(HEAD_TOKENS, candidates.count);
  for (let i = (size >>> 1) - 1; i >= 0; i--) siftLight(candidates, i, size);
  for (let i = size; i < candidates.count; i++) {
    if (weights[i]! < weights[0]! || !isBefore(candidates, i, 0)) continue;
    swap(candidates, i, 0);
    siftLight(candidates, 0, size);
  }
  for (let end = size - 1; end > 0; end--) {
    swap(candidates, 0, end);
    siftLight(candidates, 0, end);
  }
}

/** As sift, of a heap with the lightest candidate on top. */
function siftLight(candidates: Candidates, index: number, size: number): void {
  for (let parent = index, child = 2 * parent + 1; child < size; child = 2 * parent + 1) {
    if (child + 1 < size && isBefore(candidates, child, child + 1)) child++;
    if (!isBefore(candidates, parent, child)) return;
    swap(candidates, parent, child);
    parent = child;
  }
}

/** Restores the heap order below `index`: heavier first, the lower token of equals. */
function sift(candidates: Candidates, index: number, size: number): void {
  for (let parent = index, child = 2 * parent + 1; child < size; child = 2 * parent + 1) {
    if (child + 1 < size && isBefore(candidates, child + 1, child)) child++;
    if (!isBefore(candidates, child, parent)) return;
    swap(candidates, parent, child);
    parent = child;
  }
}

function isBefore({ tokens, weights }: Candidates, a: number, b: number): boolean {
  return weights[a] === weights[b] ? tokens[a]! < tokens[b]! : weights[a]! > weights[b]!;
}

function swap({ tokens, weights }: Candidates, a: number, b: number): void {
  const token = tokens[a]!;
  tokens[a] = tokens[b]!;
  tokens[b] = token;
  const weight = weights[a]!;
  weights[a] = weights[b]!;
  weights[b] = weight;
}
