/**
 * From a row of logits to a token: bias and penalties, then a draw from the filtered distribution. One
 * Sampler per sequence keeps what its settings need of the past (counts, random state); nothing depends on
 * what else is in the batch. Knows no engine and no request. Called by the scheduler, by drafters (a fork
 * each), and by verify.ts, which compares distributions.
 */
import { argmax, drawCandidate, filterCandidates, newCandidates, type Candidates, type Filters } from './candidates.ts';
import { drawFromHead, filterHead, loweredHead, plainHead, type AdjustedHead } from './head-candidates.ts';
import { wholeRow, type LogitRow, type RowHead } from './logit-row.ts';
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
  /** Nothing that is set makes a logit larger. */
  readonly #onlyLowers: boolean;
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
    this.#onlyLowers = settings.repetitionPenalty >= 1 && settings.presencePenalty >= 0 && settings.frequencyPenalty >= 0
      && settings.logitBias.every(([, bias]) => bias <= 0);
  }

  /** What rows' heads are to be made for. */
  get temperature(): number {
    return this.#settings.temperature;
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
  sample(row: LogitRow): number {
    const head = this.#adjustedHead(row);
    if (this.#settings.temperature === 0) return head === null ? argmax(this.#adjusted(wholeRow(row))) : head.tokens[0]!;
    const share = this.#random.next();
    const { candidates } = this.#context.scratch;
    const outside = head === null ? null : filterHead(head, this.#settings, candidates);
    const token = outside === null ? null : drawFromHead(candidates, { share, outside });
    return token ?? drawCandidate(filterCandidates(this.#adjusted(wholeRow(row)), this.#settings, candidates), share);
  }

  /** The probabilities that `sample` draws from; all on one token when greedy. [vocab] -> new [vocab] */
  distribution(row: LogitRow): Float64Array {
    const { candidates } = this.#context.scratch;
    const probabilities = new Float64Array(row instanceof Float32Array ? row.length : row.vocab);
    const head = this.#adjustedHead(row);
    if (this.#settings.temperature === 0) {
      const token = head === null ? argmax(this.#adjusted(wholeRow(row))) : head.tokens[0]!;
      return probabilities.fill(1, token, token + 1);
    }
    if (head === null || filterHead(head, this.#settings, candidates) !== 0) filterCandidates(this.#adjusted(wholeRow(row)), this.#settings, candidates);
    const { tokens, weights, count, total } = candidates;
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
    if (this.#isPlain && !this.#masksStops) return logits;
    const { row } = this.#context.scratch;
    row.set(logits);
    if (this.#masksStops) for (const token of this.#context.stopTokenIds) row[token] = -Infinity;
    for (const [token, bias] of this.#settings.logitBias) row[token]! += bias;
    this.#penalise(row);
    return row;
  }

  /** null where the row has no head, or that does not tell which tokens are the largest. */
  #adjustedHead(row: LogitRow): AdjustedHead | null {
    if (row instanceof Float32Array) return null;
    if (this.#isPlain && !this.#masksStops) return plainHead(row);
    if (!this.#onlyLowers) return null;
    const lowered = row.logits.map((logit, i) => this.#adjustedLogit(row.tokens[i]!, logit));
    return loweredHead(row, lowered, { temperature: this.#settings.temperature || 1, isKnown: this.#changesOnly(row) });
  }

  /** What #adjusted makes of one logit, rounded where a row rounds. */
  #adjustedLogit(token: number, logit: number): number {
    const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = this.#settings;
    let adjusted = this.#masksStops && this.#context.stopTokenIds.includes(token) ? -Infinity : logit;
    for (const [biased, bias] of logitBias) if (biased === token) adjusted = Math.fround(adjusted + bias);
    if (this.#seen.has(token)) adjusted = Math.fround(adjusted > 0 ? adjusted / repetitionPenalty : adjusted * repetitionPenalty);
    const count = this.#counts.get(token);
    return count === undefined ? adjusted : Math.fround(adjusted - (presencePenalty + frequencyPenalty * count));
  }

  /** Whether no token beyond the head has another logit than the model gave it. */
  #changesOnly({ tokens }: RowHead): boolean {
    if (Math.max(this.#seen.size, this.#counts.size) > tokens.length) return false;
    const inHead = new Set(tokens);
    const changed = [...this.#seen, ...this.#counts.keys(), ...this.#settings.logitBias.map(([token]) => token), ...(this.#masksStops ? this.#context.stopTokenIds : [])];
    return changed.every((token) => inHead.has(token));
  }

  get #masksStops(): boolean {
    return this.#numGenerated < this.#context.minTokens;
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
