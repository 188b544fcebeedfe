/**
 * What a decode step costs with and without drafted tokens, learned from the steps that were run:
 *   ms = plain + perPass * sequences that verify + perToken * tokens they verify
 * apart for each number of sequences and each half power of two of tokens read, since both change all three. Knows no
 * sequences. Filled by drafting.ts, read by draft-lengths.ts.
 */

export interface DecodeStep {
  /** Sequences that decode. */
  readonly batch: number;
  /** Tokens that attention reads, summed over them. */
  readonly reads: number;
}

export interface DecodeCost extends DecodeStep {
  /** Of them, those that verify drafted tokens. */
  readonly verifying: number;
  readonly draftedTokens: number;
  readonly ms: number;
}

/** Milliseconds; predicted, so perPass may be below 0. */
export interface Costs {
  readonly plain: number;
  readonly perPass: number;
  readonly perToken: number;
}

/** Weight of the past at each observation. */
const MEMORY = 0.9;
/** In plain steps, before any was measured: what a sequence that verifies costs, and each of its tokens. About that of long texts on a CPU. */
const FIRST = { perPass: 0.1, perToken: 0.12 };
/** After so many steps that verify, a plain one is wanted again: the machine may have become slower or faster. */
const PLAIN_EVERY = 64;

export class PassCosts {
  readonly #places = new Map<string, Place>();

  /** null until a plain step was measured not long ago: one is wanted. */
  at(step: DecodeStep): Costs | null {
    return this.#places.get(keyOf(step))?.costs ?? null;
  }

  observe(step: DecodeCost): void {
    const key = keyOf(step);
    let place = this.#places.get(key);
    if (place === undefined) this.#places.set(key, place = new Place());
    place.observe(step);
  }
}

class Place {
  #plain = 0;
  #numPlain = 0;
  #sincePlain = 0;
  /** Decayed sums of products of (verifying, drafted, ms beyond plain). */
  #passes2 = 0;
  #passesTokens = 0;
  #tokens2 = 0;
  #passesMs = 0;
  #tokensMs = 0;

  get costs(): Costs | null {
    if (this.#numPlain === 0 || this.#sincePlain >= PLAIN_EVERY) return null;
    return { plain: this.#plain, ...this.#solve() };
  }

  observe({ verifying, draftedTokens, ms }: DecodeCost): void {
    if (draftedTokens === 0) this.#observePlain(ms);
    else if (this.#numPlain > 0) this.#observeVerifying(verifying, draftedTokens, ms - this.#plain);
  }

  /** The first ones count alike, so that one slow step is soon outweighed. */
  #observePlain(ms: number): void {
    this.#sincePlain = 0;
    this.#numPlain++;
    this.#plain += Math.max(1 - MEMORY, 1 / this.#numPlain) * (ms - this.#plain);
  }

  #observeVerifying(passes: number, tokens: number, ms: number): void {
    this.#sincePlain++;
    this.#passes2 = MEMORY * this.#passes2 + passes ** 2;
    this.#passesTokens = MEMORY * this.#passesTokens + passes * tokens;
    this.#tokens2 = MEMORY * this.#tokens2 + tokens ** 2;
    this.#passesMs = MEMORY * this.#passesMs + passes * ms;
    this.#tokensMs = MEMORY * this.#tokensMs + tokens * ms;
  }

  /** While all passes had about the same length, the tokens alone explain their cost. */
  #solve(): Omit<Costs, 'plain'> {
    if (this.#tokens2 === 0) return { perPass: FIRST.perPass * this.#plain, perToken: FIRST.perToken * this.#plain };
    const determinant = this.#passes2 * this.#tokens2 - this.#passesTokens ** 2;
    const perToken = (this.#tokensMs * this.#passes2 - this.#passesMs * this.#passesTokens) / determinant;
    const isClear = determinant > 0.01 * this.#passes2 * this.#tokens2 && perToken > 0;
    if (!isClear) return { perPass: 0, perToken: Math.max(0, this.#tokensMs / this.#tokens2) };
    return { perPass: (this.#passesMs * this.#tokens2 - this.#tokensMs * this.#passesTokens) / determinant, perToken };
  }
}

function keyOf({ batch, reads }: DecodeStep): string {
  return `${batch} ${Math.round(2 * Math.log2(Math.max(1, reads)))}`;
}
