/**
 * Speculation in the scheduler: which sequences get a draft and of how many tokens, and the drafts themselves. Plain
 * decoding is the same way with drafts of no token. Speculation goes where it pays by what acceptance and passes have
 * cost so far, and the record of each sequence says why it did not. Knows drafters and sequences, no queue. Called by
 * scheduler.ts (lengths, pages) and loop.ts (drafts, observations).
 */
import { createDrafter, type DrafterParts, type DrafterSettings } from '../engine/drafters/create.ts';
import type { Draft, Drafter, DraftRequest } from '../engine/drafters/drafter.ts';
import { draftLengths, type Draftable } from './draft-lengths.ts';
import { PassCosts, type DecodeStep } from './pass-costs.ts';
import type { Scheduled } from './step-plan.ts';
import type { Sequence } from './sequence.ts';

export interface DraftingParts extends DrafterParts {
  /** Longest text of a sequence that keeps all its pages. */
  readonly maxModelLen: number;
  readonly now: () => number;
}

/** Weight of the past in the milliseconds of a drafted token. */
const MEMORY = 0.8;
/** Tokens of a draft that is tried although it is not expected to pay. */
const TRIAL_TOKENS = 2;
const DOES_NOT_PAY = 'drafting does not pay here: by the share accepted and by the time that passes take, verifying costs more than it saves';

export class Drafting {
  readonly #parts: DraftingParts;
  readonly #drafters = new Map<string, Drafter>();
  readonly #costs = new PassCosts();
  /** Milliseconds per drafted token, by drafter. */
  readonly #draftMs = new Map<Drafter, number>();

  constructor(parts: DraftingParts) {
    this.#parts = parts;
  }

  /** Pages of the target's memory that drafters hold. */
  get heldPages(): number {
    return [...this.#drafters.values()].reduce((sum, { heldPages }) => sum + heldPages, 0);
  }

  /** Takes the drafters' pages for those who cannot do without. False if they have none. */
  releasePages(): boolean {
    if (this.heldPages === 0) return false;
    for (const drafter of this.#drafters.values()) drafter.releasePages();
    return true;
  }

  forget(sequenceId: number): void {
    for (const drafter of this.#drafters.values()) drafter.forget(sequenceId);
  }

  /** Tokens to draft for each of the sequences that decode in the next step, `allowance` in all. */
  lengths(decoding: readonly Sequence[], allowance: number): Map<Sequence, number> {
    const wanting = decoding.filter(({ speculation }) => speculation !== null);
    if (wanting.length === 0) return new Map();
    const best = this.#bestLengths(decoding);
    let left = allowance;
    return new Map(wanting.map((sequence) => {
      const length = Math.min(left, this.#length(sequence, best?.get(sequence) ?? null));
      left -= length;
      return [sequence, length];
    }));
  }

  /** Drafts for the sequences that have pages for it. */
  async draft(scheduled: readonly Scheduled[]): Promise<ReadonlyMap<Sequence, Draft>> {
    const groups = new Map<Drafter, Scheduled[]>();
    for (const each of scheduled) {
      if (each.draftTokens === 0) continue;
      const drafter = this.#drafterOf(each.sequence);
      groups.set(drafter, [...(groups.get(drafter) ?? []), each]);
    }
    const drafts = new Map<Sequence, Draft>();
    for (const [drafter, group] of groups) {
      const found = await this.#draftGroup(drafter, group);
      group.forEach(({ sequence }, i) => { drafts.set(sequence, found[i]!); });
    }
    return drafts;
  }

  /** A step that only decoded took so long, drafting left out. */
  observe(decoding: readonly Sequence[], drafts: ReadonlyMap<Sequence, Draft>, ms: number): void {
    const lengths = decoding.map((sequence) => drafts.get(sequence)?.tokens.length ?? 0);
    const draftedTokens = lengths.reduce((sum, length) => sum + length, 0);
    this.#costs.observe({ ...stepOf(decoding), verifying: lengths.filter((length) => length > 0).length, draftedTokens, ms });
  }

  async #draftGroup(drafter: Drafter, group: readonly Scheduled[]): Promise<readonly Draft[]> {
    const startMs = this.#parts.now();
    const drafts = await drafter.draft(group.map(requestOf));
    const ms = this.#parts.now() - startMs;
    const tokens = drafts.reduce((sum, draft) => sum + draft.tokens.length, 0);
    if (tokens > 0) this.#draftMs.set(drafter, MEMORY * (this.#draftMs.get(drafter) ?? ms / tokens) + (1 - MEMORY) * (ms / tokens));
    drafts.forEach((draft, i) => {
      const record = group[i]!.sequence.speculation!;
      if (draft.tokens.length > 0) record.drafted(drafter.level, draft);
      else record.plain(draft.reason ?? 'the drafter proposed nothing');
    });
    return drafts;
  }

  /** null while no plain step is known to compare with. */
  #bestLengths(decoding: readonly Sequence[]): Map<Sequence, number> | null {
    const costs = this.#costs.at(stepOf(decoding));
    if (costs === null) return null;
    const lengths = draftLengths(decoding.map((sequence) => this.#draftable(sequence)), costs);
    return new Map(decoding.map((sequence, i) => [sequence, lengths[i]!]));
  }

  #draftable(sequence: Sequence): Draftable {
    if (sequence.speculation === null) return { acceptance: 0, draftMs: 0, limit: 0 };
    return { acceptance: sequence.speculation.acceptance, draftMs: this.#draftMs.get(this.#drafterOf(sequence)) ?? 0, limit: this.#limit(sequence) };
  }

  /** `best`: null while costs are not known. Notes why it is 0. */
  #length(sequence: Sequence, best: number | null): number {
    const record = sequence.speculation!;
    const limit = this.#limit(sequence);
    if (limit === 0) return plain(sequence, 'one token was left to generate');
    if (sequence.request.speculation.force) return limit;
    if (best === null) return plain(sequence, 'a plain pass was measured, to compare with');
    if (best > 0) {
      record.resumed();
      return best;
    }
    return record.declined() ? Math.min(TRIAL_TOKENS, limit) : plain(sequence, DOES_NOT_PAY);
  }

  /** A pass gives one token more than it accepts; more than are wanted would be drafted in vain. */
  #limit({ request, generated, length }: Sequence): number {
    const room = request.attention.attention === 'streaming' ? Infinity : this.#parts.maxModelLen - length;
    return Math.max(0, Math.min(request.speculation.draftTokens, request.maxTokens - generated - 1, room));
  }

  #drafterOf({ request }: Sequence): Drafter {
    const { speculation, draftBudget, draftLevel } = request.speculation;
    if (speculation === 'off') throw new Error('a sequence without speculation has no drafter');
    const settings: DrafterSettings = { speculation, draftBudget, draftLevel };
    const key = JSON.stringify(speculation === 'triforce' ? settings : speculation);
    const known = this.#drafters.get(key) ?? createDrafter(settings, this.#parts);
    this.#drafters.set(key, known);
    return known;
  }
}

function plain({ speculation }: Sequence, reason: string): 0 {
  speculation!.plain(reason);
  return 0;
}

function stepOf(decoding: readonly Sequence[]): DecodeStep {
  return { batch: decoding.length, reads: decoding.reduce((sum, { record, computed }) => sum + (record.lastAttended || computed), 0) };
}

function requestOf({ sequence, draftTokens }: Scheduled): DraftRequest {
  const { id, text, promptTokens, pages, request, sampler } = sequence;
  return {
    sequenceId: id, text, finalTokens: text.length, promptTokens, pageTable: pages!.table.entries, maxTokens: draftTokens,
    draftPrompt: request.speculation.draftPromptIds, sampler: sampler.fork(),
  };
}
