/**
 * How much of its attention each KV head spends outside the sinks and the window of a streaming head: little
 * means that the head would lose little as one. A query counts with the softmax over all keys that it may
 * see. Knows no prompts and no files. Shown queries by the engine, read by measure.ts.
 */
import type { ProbedLayer, QueryProbe } from '../engine/query-probe.ts';
import { PAGE_TOKENS } from '../kvcache/page-lists/page-list.ts';

export interface MassGeometry {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Tokens a query may look back (itself included), or null. [layers] */
  readonly slidingWindow: readonly (number | null)[];
}

/** What a streaming head reads: the first so many tokens, and the last so many, the query's own included. */
export interface StreamingReach {
  readonly sinkTokens: number;
  readonly windowTokens: number;
}

/** Half-open range of positions. */
interface Range { readonly from: number; readonly to: number }

export class AttentionMass implements QueryProbe {
  readonly #geometry: MassGeometry;
  readonly #reach: StreamingReach;
  /** Mass outside, summed over queries, of each KV head's query heads. [layers * kvHeads] */
  readonly #sums: Float64Array;
  #numQueries = 0;

  constructor(geometry: MassGeometry, reach: StreamingReach) {
    this.#geometry = geometry;
    this.#reach = reach;
    this.#sums = new Float64Array(geometry.layers * geometry.kvHeads);
  }

  /** Decode chunks count, prefill does not. */
  observe(probed: ProbedLayer): void {
    if (probed.chunk.phase !== 'decode') return;
    const { kvHeads } = this.#geometry;
    for (let head = 0; head < kvHeads; head++) this.#sums[probed.layer * kvHeads + head]! += this.#massOfHead(probed, head);
    if (probed.layer === 0) this.#numQueries += probed.chunk.tokens.length;
  }

  /** Mean over the queries since the last call; begins anew. [layers * kvHeads] */
  take(): Float64Array {
    const group = this.#geometry.heads / this.#geometry.kvHeads;
    const means = this.#sums.map((sum) => sum / (group * this.#numQueries));
    this.#sums.fill(0);
    this.#numQueries = 0;
    return means;
  }

  /** Summed over the chunk's tokens and the query heads that share the KV head. */
  #massOfHead({ chunk, layer, queries, keysOf }: ProbedLayer, kvHead: number): number {
    const { heads, kvHeads, headDim } = this.#geometry;
    const group = heads / kvHeads;
    const pages = Array.from(chunk.pageTable, (page) => keysOf(kvHead, page));
    let sum = 0;
    for (let token = 0; token < chunk.tokens.length; token++) {
      for (let head = kvHead * group; head < (kvHead + 1) * group; head++) {
        const query = queries.subarray((token * heads + head) * headDim, (token * heads + head + 1) * headDim);
        sum += massWithin(softmax(query, pages, this.#seen(layer, chunk.start + token)), this.#outside(chunk.start + token));
      }
    }
    return sum;
  }

  #seen(layer: number, position: number): Range {
    const window = this.#geometry.slidingWindow[layer] ?? null;
    return { from: window === null ? 0 : Math.max(0, position + 1 - window), to: position + 1 };
  }

  #outside(position: number): Range {
    return { from: this.#reach.sinkTokens, to: position + 1 - this.#reach.windowTokens };
  }
}

/** Rounded before ordering, so that the last bits of a sum cannot decide; equal heads stay in the model's order. */
const DIGITS = 4;

/** Heads by their mean over the lengths, least first, and these means. mass: [lengths][layers * kvHeads] */
export function rankByMass(mass: readonly Float64Array[]): { readonly ranked: readonly number[]; readonly means: Float64Array } {
  const means = mass[0]!.map((_, head) => rounded(mass.reduce((sum, atLength) => sum + atLength[head]!, 0) / mass.length));
  return { ranked: [...means.keys()].sort((a, b) => means[a]! - means[b]! || a - b), means };
}

/** As head files write figures. */
export function rounded(figure: number): number {
  return Number(figure.toFixed(DIGITS));
}

/** Probabilities by position, 0 where nothing is seen. pages: keys [64, headDim] of each page. [seen.to] */
function softmax(query: Float32Array, pages: readonly Float32Array[], seen: Range): Float64Array {
  const dim = query.length;
  const scale = 1 / Math.sqrt(dim);
  const weights = new Float64Array(seen.to);
  let highest = -Infinity;
  for (let position = seen.from; position < seen.to; position++) {
    const keys = pages[Math.floor(position / PAGE_TOKENS)]!;
    const offset = (position % PAGE_TOKENS) * dim;
    let score = 0;
    for (let c = 0; c < dim; c++) score += query[c]! * keys[offset + c]!;
    weights[position] = score * scale;
    highest = Math.max(highest, weights[position]!);
  }
  let total = 0;
  for (let i = seen.from; i < seen.to; i++) total += weights[i] = Math.exp(weights[i]! - highest);
  return weights.map((weight) => weight / total);
}

function massWithin(probabilities: Float64Array, { from, to }: Range): number {
  return probabilities.subarray(from, Math.max(from, to)).reduce((a, b) => a + b, 0);
}
