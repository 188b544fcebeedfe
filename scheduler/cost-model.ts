/**
 * What a step costs, learned from the steps that were run: decode as a moving average, prefill as
 *   ms = perToken * tokens + perRead * reads,   reads = sum over the chunks of tokens * tokens attended
 * by least squares over recent steps, since a token at depth 64K may cost fifty times one at depth 0. Rows of logits that
 * score a prompt (echo) are read after the step, at a cost of their own, which is guessed by the vocabulary until one was read.
 * Knows no sequences. Called by scheduler.ts (predictions) and loop.ts (observations).
 */

export interface StepCost {
  readonly ms: number;
  readonly decodes: number;
  readonly prefillTokens: number;
  /** Sum over the chunks of tokens times tokens that attention reads. */
  readonly prefillReads: number;
}

/** Weight of the past at each observation: about the last 20 steps count. */
const MEMORY = 0.95;
/** What reading a row of logits may take until it is known, and for how many rows the guess counts. */
const GUESSED_MS_PER_LOGIT = 1e-5;
const GUESSED_ROWS = 128;

export class CostModel {
  #decodeStepMs = 0;
  #perToken = 0;
  #perRead = 0;
  /** Decayed sums of products, for the normal equations. */
  #tokens2 = 0;
  #tokensReads = 0;
  #reads2 = 0;
  #tokensMs = 0;
  #readsMs = 0;
  /** Decayed sums, for the mean rate. */
  #tokens = 0;
  #ms = 0;
  #scoredRows = GUESSED_ROWS;
  #scoringMs: number;

  /** vocab: logits of a row. */
  constructor(vocab: number) {
    this.#scoringMs = GUESSED_ROWS * GUESSED_MS_PER_LOGIT * vocab;
  }

  /** Moving average over steps that only decode; 0 until measured. */
  get decodeStepMs(): number {
    return this.#decodeStepMs;
  }

  /** 0 until measured. */
  get prefillTokensPerSecond(): number {
    return this.#ms === 0 ? 0 : (1000 * this.#tokens) / this.#ms;
  }

  /** Milliseconds per prefill token that reads `attended` tokens; 0 until measured. */
  prefillMsPerToken(attended: number): number {
    return this.#perToken + this.#perRead * attended;
  }

  /** Milliseconds that each token of a scored prompt takes beside its prefill. */
  get scoringMsPerToken(): number {
    return this.#scoringMs / this.#scoredRows;
  }

  /** `rows` of a prompt were scored. */
  observeScoring(rows: number, ms: number): void {
    if (rows === 0) return;
    this.#scoredRows = MEMORY * this.#scoredRows + rows;
    this.#scoringMs = MEMORY * this.#scoringMs + ms;
  }

  observe({ ms, decodes, prefillTokens, prefillReads }: StepCost): void {
    if (prefillTokens > 0) this.#observePrefill(prefillTokens, prefillReads, Math.max(0, decodes > 0 ? ms - this.#decodeStepMs : ms));
    else if (decodes > 0) this.#decodeStepMs = this.#decodeStepMs === 0 ? ms : MEMORY * this.#decodeStepMs + (1 - MEMORY) * ms;
  }

  #observePrefill(tokens: number, reads: number, ms: number): void {
    this.#tokens2 = MEMORY * this.#tokens2 + tokens * tokens;
    this.#tokensReads = MEMORY * this.#tokensReads + tokens * reads;
    this.#reads2 = MEMORY * this.#reads2 + reads * reads;
    this.#tokensMs = MEMORY * this.#tokensMs + tokens * ms;
    this.#readsMs = MEMORY * this.#readsMs + reads * ms;
    this.#tokens = MEMORY * this.#tokens + tokens;
    this.#ms = MEMORY * this.#ms + ms;
    this.#solve();
  }

  /** Neither cost can be negative: where the plane says so, the other alone explains the time. */
  #solve(): void {
    const determinant = this.#tokens2 * this.#reads2 - this.#tokensReads ** 2;
    const isSingular = determinant <= 1e-9 * this.#tokens2 * this.#reads2;
    const perToken = isSingular ? -1 : (this.#tokensMs * this.#reads2 - this.#readsMs * this.#tokensReads) / determinant;
    const perRead = isSingular ? -1 : (this.#readsMs * this.#tokens2 - this.#tokensMs * this.#tokensReads) / determinant;
    if (perRead < 0) [this.#perToken, this.#perRead] = [this.#tokensMs / this.#tokens2, 0];
    else if (perToken < 0) [this.#perToken, this.#perRead] = [0, this.#readsMs / this.#reads2];
    else [this.#perToken, this.#perRead] = [perToken, perRead];
  }
}
