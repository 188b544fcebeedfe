/**
 * How likely a drafted token is to be accepted, those before it being so, by how sure its drafter was of it. What all texts
 * teach is kept for each class of sureness; what a text teaches moves all of its classes alike, since a text that is easily
 * guessed is so at every word, and one text sees too little of each. Pure. Owned by drafter-experience.ts and
 * speculation-record.ts.
 */

export interface AcceptanceOptions {
  /** What is believed of each class before anything was compared. */
  readonly beliefs: readonly number[];
  /** Comparisons that the belief counts for. */
  readonly weight: number;
  /** Weight of what was compared before in a class, at each comparison in it. */
  readonly memory: number;
}

/** Of all texts. */
export class Acceptance {
  readonly #options: AcceptanceOptions;
  /** [classes] */
  readonly #accepted: Float64Array;
  /** [classes] */
  readonly #compared: Float64Array;

  constructor(options: AcceptanceOptions) {
    this.#options = options;
    this.#accepted = new Float64Array(options.beliefs.length);
    this.#compared = new Float64Array(options.beliefs.length);
  }

  get classes(): number {
    return this.#compared.length;
  }

  of(sureness: number): number {
    const { beliefs, weight } = this.#options;
    return (this.#accepted[sureness]! + weight * beliefs[sureness]!) / (this.#compared[sureness]! + weight);
  }

  observe(sureness: number, accepted: boolean): void {
    const { memory } = this.#options;
    this.#compared[sureness] = memory * this.#compared[sureness]! + 1;
    this.#accepted[sureness] = memory * this.#accepted[sureness]! + (accepted ? 1 : 0);
  }

  /** What was compared so far counts for less from now on, in all classes. */
  fade(memory: number): void {
    for (let i = 0; i < this.#compared.length; i++) {
      this.#compared[i]! *= memory;
      this.#accepted[i]! *= memory;
    }
  }
}

/** Variance of how much easier or harder a text is than others, in log-odds: at its beginning, and by how much it grows with each token. */
const VARIANCE = { first: 1, growth: 0.01 };
/** A text is never so different from the others that nothing could be learnt of it any more. */
const MOST_SHIFT = 3;
/** The model of acceptance needs it below 1. */
const MAX_ACCEPTANCE = 0.98;

/** Of one text: a logistic model with one parameter, followed as the text goes on (an extended Kalman filter): fast at first and after surprises. */
export class TextAcceptance {
  readonly #shared: Acceptance;
  #shift = 0;
  #variance = VARIANCE.first;

  constructor(shared: Acceptance) {
    this.#shared = shared;
  }

  /** [classes] */
  get all(): readonly number[] {
    return Array.from({ length: this.#shared.classes }, (_, sureness) => this.of(sureness));
  }

  of(sureness: number): number {
    const share = this.#shared.of(sureness);
    const odds = share / (1 - share) * Math.exp(this.#shift);
    return Math.min(MAX_ACCEPTANCE, odds / (1 + odds));
  }

  observe(sureness: number, accepted: boolean): void {
    const expected = this.of(sureness);
    this.#variance = this.#variance / (1 + this.#variance * expected * (1 - expected)) + VARIANCE.growth;
    const step = this.#variance * ((accepted ? 1 : 0) - expected);
    this.#shift = Math.max(-MOST_SHIFT, Math.min(MOST_SHIFT, this.#shift + step));
    this.#shared.observe(sureness, accepted);
  }
}
