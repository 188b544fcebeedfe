/**
 * What drafting did for one sequence: passes, tokens of each level, why nothing was drafted; and from the same numbers
 * how likely a drafted token is to be accepted. Knows no drafter. Filled by drafting.ts and commit.ts; read by
 * drafting.ts and, at the end, by sequence-record.ts.
 */
import type { Draft } from '../engine/drafters/drafter.ts';
import type { TextAcceptance } from './acceptance.ts';
import type { DrafterExperience } from './drafter-experience.ts';
import type { DraftLevelMetrics, SpeculationMetrics } from './messages.ts';

/** Plain passes before drafting that did not pay is tried again; twice as many each time, up to the last. */
const RETRY = { first: 8, last: 256 };

/** A draft that was not made, though it would have cost nothing to make: its first token shows what it was worth. */
interface Foreseen {
  readonly draft: Draft;
  /** Of the text that it would have followed. */
  readonly length: number;
}

export class SpeculationRecord {
  verifiedPasses = 0;
  plainPasses = 0;
  /** Plain passes since drafting was found not to pay. */
  #declined = 0;
  #retryAfter = RETRY.first;
  /** By how sure the drafter is; null before anything was decided. */
  #bySureness: TextAcceptance | null = null;
  /** Of all tokens alike. */
  #ofAll: TextAcceptance | null = null;
  #foreseen: Foreseen | null = null;
  /** Of the draft that is verified: how sure the drafter was of the tokens that are not compared yet. */
  #uncompared: Uint8Array = new Uint8Array(0);
  readonly #levels = new Map<string, { draftedTokens: number; acceptedTokens: number }>();
  readonly #reasons = new Map<string, number>();
  #level = '';

  get draftedTokens(): number {
    return this.#levels.get(this.#level)?.draftedTokens ?? 0;
  }

  get acceptedTokens(): number {
    return this.#levels.get(this.#level)?.acceptedTokens ?? 0;
  }

  /** What all sequences of its drafter teach, to which this one adds. Before anything else; the same each time. */
  learnFrom(experience: DrafterExperience, temperature: number): void {
    if (this.#bySureness === null) [this.#bySureness, this.#ofAll] = experience.acceptancesFor(temperature);
  }

  /** Of a token of which nothing is known yet. */
  get acceptance(): number {
    return this.#ofAll!.of(0);
  }

  /** Of tokens, by how sure the drafter is of them. */
  get acceptances(): readonly number[] {
    return this.#bySureness!.all;
  }

  acceptanceOf(sureness: number): number {
    return this.#bySureness!.of(sureness);
  }

  /** The drafter would propose this after so many tokens. What it would have proposed before is compared with what came. */
  foresee(draft: Draft, text: Int32Array): void {
    const last = this.#foreseen;
    if (last !== null && last.length < text.length && last.draft.tokens.length > 0) {
      this.#observe(last.draft.classes[0]!, text[last.length] === last.draft.tokens[0]);
    }
    this.#foreseen = { draft, length: text.length };
  }

  /** The pass verifies a draft. */
  drafted(level: string, { tokens, classes, below }: Draft): void {
    this.verifiedPasses++;
    this.#level = level;
    for (const count of below) this.#add(count);
    this.#add({ level, draftedTokens: tokens.length, acceptedTokens: 0 });
    this.#uncompared = classes;
    this.#foreseen = null;
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

  /** The next drafted token was compared with the target. */
  compared(accepted: boolean): void {
    this.#observe(this.#uncompared[0]!, accepted);
    this.#uncompared = this.#uncompared.subarray(1);
    if (accepted) this.#add({ level: this.#level, draftedTokens: 0, acceptedTokens: 1 });
  }

  toMetrics(): SpeculationMetrics {
    const levels = [...this.#levels].map(([level, counts]) => ({ level, ...counts }));
    const commonest = [...this.#reasons].reduce<[string, number]>((most, entry) => (entry[1] > most[1] ? entry : most), ['', 0])[0];
    const isOff = this.plainPasses > this.verifiedPasses + this.acceptedTokens;
    return { verifiedPasses: this.verifiedPasses, plainPasses: this.plainPasses, levels, offReason: isOff ? commonest : null };
  }

  #observe(sureness: number, accepted: boolean): void {
    this.#bySureness!.observe(sureness, accepted);
    this.#ofAll!.observe(0, accepted);
  }

  #add({ level, draftedTokens, acceptedTokens }: DraftLevelMetrics): void {
    const sum = this.#levels.get(level);
    if (sum === undefined) this.#levels.set(level, { draftedTokens, acceptedTokens });
    else [sum.draftedTokens, sum.acceptedTokens] = [sum.draftedTokens + draftedTokens, sum.acceptedTokens + acceptedTokens];
  }
}
