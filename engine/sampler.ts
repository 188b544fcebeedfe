/**
 * From a row of logits to a token: bias and penalties, then a draw from the filtered distribution. One
 * Sampler per sequence keeps what its settings need of the past (counts, random state); nothing depends on
 * what else is in the batch. Knows no engine and no request. Called by the scheduler, by drafters (a fork
 * each), and by verify.ts, which compares distributions.
 */
import { argmax, drawCandidate, filterCandidates, newCandidates, type Candidates, type Filters } from './candidates.ts';
import { Random } from './random.ts';

export interface SamplerSettings extends Filters {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 is off. Over prompt and output, as in Hugging Face. */
  readonly repetitionPenalty: number;
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
}

export interface SamplerContext {
  readonly seed: number;
  readonly promptIds: Int32Array;
  /** Tokens that cannot be drawn before `minTokens` tokens are generated. */
  readonly stopTokenIds: readonly number[];
  readonly minTokens: number;
  /** The text must be the same whenever the seed is, drafts or none: drafted tokens then come without distributions. */
  readonly reproducible: boolean;
  /** Lent to every sampler of a thread; nothing in it outlives a call. */
  readonly scratch: SamplerScratch;
}

export interface SamplerScratch {
  /** [vocab] */
  readonly row: Float32Array;
  readonly candidates: Candidates;
}

export function newSamplerScratch(vocab: number): SamplerScratch {
  return { row: new Float32Array(vocab), candidates: newCandidates(vocab) };
}

/** What a sampler and its forks pass on. */
interface SamplerState {
  readonly random: Random;
  /** Drawn from by all forks in turn, so that no number of theirs is ever the target's too. */
  readonly draftRandom: Random;
  /** How often each token was generated. */
  readonly counts: Map<number, number>;
  /** Tokens of prompt and output; empty while there is no repetition penalty. */
  readonly seen: Set<number>;
  readonly numGenerated: number;
}

/** Added to the seed: any number that makes another stream. */
const DRAFT_STREAM = 0x5bd1e995;

export class Sampler {
  readonly #settings: SamplerSettings;
  readonly #context: SamplerContext;
  readonly #random: Random;
  readonly #draftRandom: Random;
  readonly #counts: Map<number, number>;
  readonly #seen: Set<number>;
  readonly #isPlain: boolean;
  #numGenerated: number;

  constructor(settings: SamplerSettings, context: SamplerContext, state: SamplerState = newState(settings, context)) {
    this.#settings = settings;
    this.#context = context;
    this.#random = state.random;
    this.#draftRandom = state.draftRandom;
    this.#counts = state.counts;
    this.#seen = state.seen;
    this.#numGenerated = state.numGenerated;
    this.#isPlain = settings.repetitionPenalty === 1 && settings.presencePenalty === 0 && settings.frequencyPenalty === 0
      && settings.logitBias.length === 0;
  }

  /** Every row has one token that it gives for certain, or numbers that were fixed beforehand: no distribution tells more. */
  get isForeseen(): boolean {
    return this.#settings.temperature === 0 || this.#context.reproducible;
  }

  /**
   * One that stands at the same place and can be advanced by a drafter. It draws numbers of its own, or, when the
   * text must be reproducible, those that this one will draw: so that it often draws the same tokens.
   */
  fork(): Sampler {
    return new Sampler(this.#settings, this.#context, {
      random: this.#context.reproducible ? this.#random.copy() : this.#draftRandom,
      draftRandom: this.#draftRandom,
      counts: new Map(this.#counts),
      seen: new Set(this.#seen),
      numGenerated: this.#numGenerated,
    });
  }

  /** Uniform in [0, 1), from the stream that tokens are drawn with. */
  uniform(): number {
    return this.#random.next();
  }

  /** Draws the next token. [vocab] -> token id; `accept` it before the next row. */
  sample(logits: Float32Array): number {
    const row = this.#adjusted(logits);
    if (this.#settings.temperature === 0) return argmax(row);
    return drawCandidate(filterCandidates(row, this.#settings, this.#context.scratch.candidates), this.#random.next());
  }

  /** The probabilities that `sample` draws from; all on one token when greedy. [vocab] -> new [vocab] */
  distribution(logits: Float32Array): Float64Array {
    const row = this.#adjusted(logits);
    const probabilities = new Float64Array(row.length);
    if (this.#settings.temperature === 0) return probabilities.fill(1, argmax(row), argmax(row) + 1);
    const { tokens, weights, count, total } = filterCandidates(row, this.#settings, this.#context.scratch.candidates);
    for (let i = 0; i < count; i++) probabilities[tokens[i]!] = weights[i]! / total;
    return probabilities;
  }

  /** The token was appended to the text: penalties count it from the next row on. */
  accept(token: number): void {
    this.#numGenerated++;
    if (this.#isPlain) return;
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    if (this.#settings.repetitionPenalty !== 1) this.#seen.add(token);
  }

  /** The row itself if nothing changes it, else a changed copy in the scratch. Order as in vLLM. */
  #adjusted(logits: Float32Array): Float32Array {
    const masksStops = this.#numGenerated < this.#context.minTokens;
    if (this.#isPlain && !masksStops) return logits;
    const { row } = this.#context.scratch;
    row.set(logits);
    if (masksStops) for (const token of this.#context.stopTokenIds) row[token] = -Infinity;
    for (const [token, bias] of this.#settings.logitBias) row[token]! += bias;
    this.#penalise(row);
    return row;
  }

  #penalise(row: Float32Array): void {
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = this.#settings;
    for (const token of this.#seen) row[token] = row[token]! > 0 ? row[token]! / repetitionPenalty : row[token]! * repetitionPenalty;
    for (const [token, count] of this.#counts) row[token]! -= presencePenalty + frequencyPenalty * count;
  }
}

function newState({ repetitionPenalty }: SamplerSettings, { seed, promptIds }: SamplerContext): SamplerState {
  return {
    random: new Random(seed), draftRandom: new Random(seed + DRAFT_STREAM),
    counts: new Map(), seen: new Set(repetitionPenalty === 1 ? [] : promptIds), numGenerated: 0,
  };
}
