/**
 * What one drafter was found to cost and to be worth, over all requests that it drafted for: the next one need not find it
 * out anew. Knows no sequences. Owned by drafting.ts.
 */
import type { Draft, Drafter } from '../engine/drafters/drafter.ts';
import { Acceptance, TextAcceptance } from './acceptance.ts';

/** Weight of the past in the milliseconds of a token. */
const MEMORY = 0.8;
/** Comparisons that the drafter's own word for its acceptance counts for. */
const WORD_WEIGHT = 8;
/** Weight of what was compared before: at each comparison, and at each new text, so that what did not pay is tried again some day. */
const KEPT = { comparison: 0.99, text: 0.97 };
/** Reading so few tokens is part of drafting. */
export const SOON_READ = 64;

export class DrafterExperience {
  readonly #firstAcceptances: readonly number[];
  readonly #greedy: Acceptance;
  readonly #drawn: Acceptance;
  #draftMs: number | null = null;
  #readMs: number | null = null;

  constructor({ firstAcceptances }: Pick<Drafter, 'firstAcceptances'>) {
    this.#firstAcceptances = firstAcceptances;
    this.#greedy = this.#acceptance();
    this.#drawn = this.#acceptance();
  }

  /** Milliseconds of a drafted token; null until measured. */
  get draftMs(): number | null {
    return this.#draftMs;
  }

  /** Milliseconds of a token that it reads; null until measured. */
  get readMs(): number | null {
    return this.#readMs;
  }

  /** Drawn tokens are guessed less often than greedy ones. For a new text. */
  acceptanceFor(temperature: number): TextAcceptance {
    const acceptance = temperature === 0 ? this.#greedy : this.#drawn;
    acceptance.fade(KEPT.text);
    return new TextAcceptance(acceptance);
  }

  /** Drafts that were made together took so long. */
  observe(drafts: readonly Draft[], ms: number): void {
    const drafted = drafts.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const read = drafts.reduce((sum, { readTokens }) => sum + readTokens, 0);
    if (read > SOON_READ * drafts.length) this.#readMs = mean(this.#readMs, Math.max(0, ms - drafted * (this.#draftMs ?? 0)) / read);
    else if (drafted > 0) this.#draftMs = mean(this.#draftMs, ms / drafted);
  }

  #acceptance(): Acceptance {
    return new Acceptance({ beliefs: this.#firstAcceptances, weight: WORD_WEIGHT, memory: KEPT.comparison });
  }
}

function mean(past: number | null, ms: number): number {
  return past === null ? ms : MEMORY * past + (1 - MEMORY) * ms;
}
