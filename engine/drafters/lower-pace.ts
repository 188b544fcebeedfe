/**
 * Whether passes of TriForce's middle level give more tokens a millisecond with what a lower drafter proposes than without:
 * both are measured, and the slower one is tried again ever more rarely. Knows no drafter and no text. Owned by
 * middle-drafter.ts.
 */

/** Passes of either way before they are compared, and how many of them do not count: what was never run before is slow. */
const FIRST = { passes: 10, warmUp: 4 };
/** Passes the faster way before the slower one is tried again for a few; twice as many each time, up to the last. */
const RETRY = { first: 32, last: 1024, passes: 4 };
/** Weight of the past at each pass. */
const MEMORY = 0.95;

export interface PacedPass {
  /** Texts that go through it together. */
  readonly texts: number;
  /** Whether the lower drafter was asked. */
  readonly asked: boolean;
  /** That it gave, of all texts. */
  readonly tokens: number;
  /** The lower drafter's time included. */
  readonly ms: number;
}

export class LowerPace {
  /** By the number of texts in a pass: what pays for one text may not for several. */
  readonly #comparisons = new Map<number, Comparison>();

  /** Whether to ask the lower drafter before a pass of so many texts. */
  asks(texts: number): boolean {
    return this.#comparisonOf(texts).next();
  }

  /** Milliseconds that asking saves for each token; null before both ways were measured. */
  savedMs(texts: number): number | null {
    return this.#comparisonOf(texts).savedMs;
  }

  observe({ texts, asked, tokens, ms }: PacedPass): void {
    this.#comparisonOf(texts).of(asked).observe(tokens, ms);
  }

  #comparisonOf(texts: number): Comparison {
    const known = this.#comparisons.get(texts) ?? new Comparison();
    this.#comparisons.set(texts, known);
    return known;
  }
}

class Comparison {
  readonly #asked = new Speed();
  readonly #alone = new Speed();
  #asksBest = true;
  #passes = 0;
  #retryAfter = RETRY.first;

  of(asked: boolean): Speed {
    return asked ? this.#asked : this.#alone;
  }

  get savedMs(): number | null {
    return Math.min(this.#asked.passes, this.#alone.passes) < FIRST.passes ? null : 1 / this.#alone.rate - 1 / this.#asked.rate;
  }

  next(): boolean {
    if (this.#asked.passes < FIRST.passes) return true;
    if (this.#alone.passes < FIRST.passes) return false;
    const asksBest = this.#asked.rate >= this.#alone.rate;
    if (asksBest !== this.#asksBest) [this.#asksBest, this.#passes, this.#retryAfter] = [asksBest, 0, RETRY.first];
    if (this.#passes++ < this.#retryAfter) return asksBest;
    if (this.#passes === this.#retryAfter + RETRY.passes) [this.#passes, this.#retryAfter] = [0, Math.min(2 * this.#retryAfter, RETRY.last)];
    return !asksBest;
  }
}

class Speed {
  passes = 0;
  #tokens = 0;
  #ms = 0;

  /** Tokens a millisecond. */
  get rate(): number {
    return this.#tokens / Math.max(this.#ms, 1e-9);
  }

  observe(tokens: number, ms: number): void {
    if (this.passes++ < FIRST.warmUp) return;
    this.#tokens = MEMORY * this.#tokens + tokens;
    this.#ms = MEMORY * this.#ms + ms;
  }
}
