/**
 * What drafting did for one sequence: passes, tokens of each level, why nothing was drafted; and from the same numbers
 * how likely a drafted token is to be accepted. Knows no drafter. Filled by drafting.ts and commit.ts; read by
 * drafting.ts and, at the end, by sequence-record.ts.
 */
import type { Draft } from '../engine/drafters/drafter.ts';
import type { DraftLevelMetrics, SpeculationMetrics } from './messages.ts';

/** Tokens accepted and tried before anything is known: three of four. */
const PRIOR = { accepted: 3, tried: 4 };
/** Weight of the past at each pass: about the last eight count, since a text may begin to quote at any word. */
const MEMORY = 0.88;
/** The model of acceptance needs it below 1. */
const MAX_ACCEPTANCE = 0.98;
/** Plain passes before drafting that did not pay is tried again; twice as many each time, up to the last. */
const RETRY = { first: 8, last: 256 };

export class SpeculationRecord {
  verifiedPasses = 0;
  plainPasses = 0;
  /** Plain passes since drafting was found not to pay. */
  #declined = 0;
  #retryAfter = RETRY.first;
  #accepted = PRIOR.accepted;
  #tried = PRIOR.tried;
  readonly #levels = new Map<string, { draftedTokens: number; acceptedTokens: number }>();
  readonly #reasons = new Map<string, number>();
  #level = '';

  /** Estimated, by the last passes. */
  get acceptance(): number {
    return Math.min(MAX_ACCEPTANCE, this.#accepted / this.#tried);
  }

  get draftedTokens(): number {
    return this.#levels.get(this.#level)?.draftedTokens ?? 0;
  }

  get acceptedTokens(): number {
    return this.#levels.get(this.#level)?.acceptedTokens ?? 0;
  }

  /** The pass verifies a draft. */
  drafted(level: string, { tokens, below }: Draft): void {
    this.verifiedPasses++;
    this.#level = level;
    for (const count of below) this.#add(count);
    this.#add({ level, draftedTokens: tokens.length, acceptedTokens: 0 });
    this.#accepted *= MEMORY;
    this.#tried *= MEMORY;
  }

  /** The pass draws one token alone. */
  plain(reason: string): void {
    this.plainPasses++;
    this.#reasons.set(reason, (this.#reasons.get(reason) ?? 0) + 1);
  }

  /** Drafting is not expected to pay. True when it is to be tried nevertheless: texts change. */
  declined(): boolean {
    if (this.#declined++ < this.#retryAfter) return false;
    this.#declined = 0;
    this.#retryAfter = Math.min(2 * this.#retryAfter, RETRY.last);
    return true;
  }

  /** Drafting is expected to pay. */
  resumed(): void {
    this.#declined = 0;
    this.#retryAfter = RETRY.first;
  }

  /** One drafted token was compared with the target. */
  compared(accepted: boolean): void {
    this.#tried++;
    if (!accepted) return;
    this.#accepted++;
    this.#add({ level: this.#level, draftedTokens: 0, acceptedTokens: 1 });
  }

  toMetrics(): SpeculationMetrics {
    const levels = [...this.#levels].map(([level, counts]) => ({ level, ...counts }));
    const commonest = [...this.#reasons].reduce<[string, number]>((most, entry) => (entry[1] > most[1] ? entry : most), ['', 0])[0];
    const isOff = this.plainPasses > this.verifiedPasses;
    return { verifiedPasses: this.verifiedPasses, plainPasses: this.plainPasses, levels, offReason: isOff ? commonest : null };
  }

  #add({ level, draftedTokens, acceptedTokens }: DraftLevelMetrics): void {
    const sum = this.#levels.get(level);
    if (sum === undefined) this.#levels.set(level, { draftedTokens, acceptedTokens });
    else [sum.draftedTokens, sum.acceptedTokens] = [sum.draftedTokens + draftedTokens, sum.acceptedTokens + acceptedTokens];
  }
}
