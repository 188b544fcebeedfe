/**
 * Speculation in the scheduler: which sequences get a draft and of how many tokens, and the drafts themselves. Plain
 * decoding is the same way with drafts of no token. Speculation goes where it pays by what acceptance and passes have
 * cost so far, and the record of each sequence says why it did not. Knows drafters and sequences, no queue. Called by
 * scheduler.ts (lengths, pages) and loop.ts (drafts, observations).
 */
import { createDrafter, type DrafterParts, type DrafterSettings } from '../engine/drafters/create.ts';
import { headOf, type Draft, type Drafter, type DraftRequest } from '../engine/drafters/drafter.ts';
import { chooseLengths, prospectOf, type Choice, type Prospect } from './draft-prospects.ts';
import { DrafterExperience } from './drafter-experience.ts';
import { PassCosts, type DecodeStep } from './pass-costs.ts';
import type { Scheduled } from './step-plan.ts';
import type { Sequence } from './sequence.ts';

export interface DraftingParts extends DrafterParts {
  /** Longest text of a sequence that keeps all its pages. */
  readonly maxModelLen: number;
  /** What the target takes to read a token of so many; 0 until measured. */
  readonly targetReadMs: (tokens: number) => number;
}

export class Drafting {
  readonly #parts: DraftingParts;
  readonly #drafters = new Map<string, Drafter>();
  readonly #costs = new PassCosts();
  readonly #experiences = new Map<Drafter, DrafterExperience>();
  /** Of the step that is being planned. */
  readonly #prospects = new Map<Sequence, Prospect>();
  #choices: ReadonlyMap<Sequence, Choice> = new Map();

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
    this.#prospects.clear();
    for (const sequence of decoding) if (sequence.speculation !== null) this.#prospects.set(sequence, this.#prospectOf(sequence));
    if (this.#prospects.size === 0) return new Map();
    this.#choices = chooseLengths(decoding, this.#prospects, this.#costs.at(stepOf(decoding)));
    let left = allowance;
    return new Map([...this.#choices].map(([sequence, { length }]) => {
      const allowed = Math.min(left, length);
      left -= allowed;
      return [sequence, allowed];
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
    const foreseen = group.flatMap(({ sequence, draftTokens }) => headOfForeseen(this.#prospects.get(sequence)!, draftTokens));
    const drafts = foreseen.length === group.length ? foreseen : await this.#timed(drafter, group.map((each) => requestOf(each, this.#choices.get(each.sequence)!)));
    drafts.forEach((draft, i) => {
      const record = group[i]!.sequence.speculation!;
      if (draft.tokens.length > 0) record.drafted(drafter.level, draft);
      else record.plain(draft.reason ?? 'the drafter proposed nothing');
    });
    return drafts;
  }

  async #timed(drafter: Drafter, requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    const startMs = this.#parts.now();
    const drafts = await drafter.draft(requests);
    this.#experienceOf(drafter).observe(drafts, this.#parts.now() - startMs);
    return drafts;
  }

  #prospectOf(sequence: Sequence): Prospect {
    const drafter = this.#drafterOf(sequence);
    const { targetReadMs } = this.#parts;
    return prospectOf(sequence, { drafter, experience: this.#experienceOf(drafter), limit: this.#limit(sequence), targetReadMs });
  }

  #experienceOf(drafter: Drafter): DrafterExperience {
    const known = this.#experiences.get(drafter) ?? new DrafterExperience(drafter);
    this.#experiences.set(drafter, known);
    return known;
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
    const key = JSON.stringify(speculation === 'ngram' ? speculation : settings);
    const known = this.#drafters.get(key) ?? createDrafter(settings, this.#parts);
    this.#drafters.set(key, known);
    return known;
  }
}

/** Empty for a drafter that needs passes. */
function headOfForeseen({ foreseen }: Prospect, count: number): readonly Draft[] {
  return foreseen === null ? [] : [headOf(foreseen, count)];
}

function stepOf(decoding: readonly Sequence[]): DecodeStep {
  return { batch: decoding.length, reads: decoding.reduce((sum, { record, computed }) => sum + (record.lastAttended || computed), 0) };
}

function requestOf({ sequence, draftTokens }: Scheduled, { patience }: Choice): DraftRequest {
  const { id, text, promptTokens, pages, request, sampler } = sequence;
  return {
    sequenceId: id, text, finalTokens: text.length, promptTokens, pageTable: pages!.table.entries, maxTokens: draftTokens,
    draftPrompt: request.speculation.draftPromptIds, patience, sampler: sampler.fork(),
  };
}
