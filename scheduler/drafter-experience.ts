/**
 * What one drafter was found to cost and to be worth, over all requests that it drafted for: the next one need not find it
 * out anew. Knows no sequences. Owned by drafting.ts.
 */
import type { Draft, Drafter } from '../engine/drafters/drafter.ts';
import { Acceptance, TextAcceptance } from './acceptance.ts';

/** Weight of the past in the milliseconds of a token, when it took longer and when not: what is run for the first time is slow, and so is what other programs disturb. */
const MEMORY = { slower: 0.8, faster: 0.4 };
/** Comparisons that the drafter's own word for its acceptance counts for. */
const WORD_WEIGHT = 8;
/** Share of the tokens that may be accepted where nothing is known of them. */
const ANY_TOKEN = 0.75;
/** Weight of what was compared before: at each comparison, and at each new text, so that what did not pay is tried again some day. */
const KEPT = { comparison: 0.99, text: 0.97 };
/** Reading so few tokens is part of drafting. */
export const SOON_READ = 64;

export class DrafterExperience {
  readonly #greedy: Taught;
  readonly #drawn: Taught;
  #draftMs: number | null = null;
  #readMs: number | null = null;

  constructor({ firstAcceptances }: Pick<Drafter, 'firstAcceptances'>) {
    this.#greedy = taught(firstAcceptances);
    this.#drawn = taught(firstAcceptances);
  }

  /** Milliseconds of a drafted token; null until measured. */
  get draftMs(): number | null {
    return this.#draftMs;
  }

  /** Milliseconds of a token that it reads; null until measured. */
  get readMs(): number | null {
    return this.#readMs;
  }

  /** For a new text: by how sure the drafter is of a token, and of all tokens alike. Drawn tokens are guessed less often than greedy ones. */
  acceptancesFor(temperature: number): readonly [TextAcceptance, TextAcceptance] {
    const { bySureness, ofAll } = temperature === 0 ? this.#greedy : this.#drawn;
    for (const acceptance of [bySureness, ofAll]) acceptance.fade(KEPT.text);
    return [new TextAcceptance(bySureness), new TextAcceptance(ofAll)];
  }

  /** Drafts that were made together took so long. */
  observe(drafts: readonly Draft[], ms: number): void {
    const drafted = drafts.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const read = drafts.reduce((sum, { readTokens }) => sum + readTokens, 0);
    if (read > SOON_READ * drafts.length) this.#readMs = mean(this.#readMs, Math.max(0, ms - drafted * (this.#draftMs ?? 0)) / read);
    else if (drafted > 0) this.#draftMs = mean(this.#draftMs, ms / drafted);
  }
}

/** What texts taught. */
interface Taught {
  readonly bySureness: Acceptance;
  readonly ofAll: Acceptance;
}

function taught(firstAcceptances: readonly number[]): Taught {
  const acceptance = (beliefs: readonly number[]): Acceptance => new Acceptance({ beliefs, weight: WORD_WEIGHT, memory: KEPT.comparison });
  return { bySureness: acceptance(firstAcceptances), ofAll: acceptance([ANY_TOKEN]) };
}

function mean(past: number | null, ms: number): number {
  if (past === null) return ms;
  const kept = ms > past ? MEMORY.slower : MEMORY.faster;
  return kept * past + (1 - kept) * ms;
}
