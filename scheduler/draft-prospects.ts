/**
 * What may be drafted for a sequence in the next step, and how much of it is: by what its drafter costs and is worth, what
 * the sequence has accepted so far, and what passes cost. Where that is nothing the sequence's record says why. Knows no
 * queue and no pages. Called by drafting.ts.
 */
import type { Draft, Drafter, ForeseenText, Patience } from '../engine/drafters/drafter.ts';
import { SOON_READ, type DrafterExperience } from './drafter-experience.ts';
import { draftLengths, leastReach, savedMs, type Draftable } from './draft-lengths.ts';
import type { Costs } from './pass-costs.ts';
import type { Sequence } from './sequence.ts';

export interface Prospect extends Draftable {
  /** What would be drafted; null for a drafter that needs passes to know it. */
  readonly foreseen: Draft | null;
  /** Milliseconds that the drafter has to read before it can draft. */
  readonly readingMs: number;
  /** Whether the drafter's cost was measured. */
  readonly isMeasured: boolean;
  /** Why there is nothing to draft; null when there is something. */
  readonly reason: string | null;
}

export interface ProspectParts {
  readonly drafter: Drafter;
  readonly experience: DrafterExperience;
  /** Most tokens. */
  readonly limit: number;
  /** What the target takes to read a token of so many, for a drafter that was never seen reading; 0 until measured. */
  readonly targetReadMs: (tokens: number) => number;
}

/** Tokens of a draft that is tried: although it is not expected to pay, or while nobody knows what drafting costs. */
const TRIAL_TOKENS = 2;
/** A text is expected to go on for so many tokens, and as many as it has generated, if it may. */
const EXPECTED_TOKENS = 64;
/** Drafts must be expected to save so many times what reading takes: the expectation may be wrong, and reading is paid first. */
const READING_MARGIN = 2;
const DOES_NOT_PAY = 'drafting does not pay here: by the share accepted and by the time that passes take, verifying costs more than it saves';
const READS_TOO_LONG = 'drafting does not pay here: what the drafter would have to read first takes longer than its drafts would save';

const NOTHING: Prospect = { acceptances: [], draftMs: 0, foreseen: null, readingMs: 0, isMeasured: true, reason: null };

/** The sequence asks for drafts. */
export function prospectOf(sequence: Sequence, { drafter, experience, limit, targetReadMs }: ProspectParts): Prospect {
  if (limit === 0) return { ...NOTHING, reason: 'one token was left to generate' };
  const record = sequence.speculation!;
  record.learnFrom(experience, sequence.request.sampling.temperature);
  const text = foreseenText(sequence, limit);
  const foreseen = drafter.foresee(text);
  if (foreseen !== null) record.foresee(foreseen, sequence.text);
  const unread = drafter.unread(text);
  return {
    foreseen,
    acceptances: foreseen === null ? new Array<number>(limit).fill(record.acceptance) : Array.from(foreseen.classes, (sureness) => record.acceptanceOf(sureness)),
    draftMs: foreseen === null ? experience.draftMs ?? 0 : 0,
    readingMs: unread > SOON_READ ? unread * (experience.readMs ?? targetReadMs(unread)) : 0,
    isMeasured: foreseen !== null || experience.draftMs !== null,
    reason: foreseen?.reason ?? null,
  };
}

/** What to draft for a sequence. */
export interface Choice {
  /** Most tokens; 0 for none. */
  readonly length: number;
  readonly patience: Patience | null;
}

/** For each of the sequences that decode together and ask for drafts. `costs`: null while no plain step is known to compare with. */
export function chooseLengths(decoding: readonly Sequence[], prospects: ReadonlyMap<Sequence, Prospect>, costs: Costs | null): Map<Sequence, Choice> {
  const best = costs === null ? null : draftLengths(decoding.map((sequence) => prospects.get(sequence) ?? NOTHING), costs);
  const choices = new Map<Sequence, Choice>();
  decoding.forEach((sequence, i) => {
    const prospect = prospects.get(sequence);
    if (prospect === undefined) return;
    const known = costs === null ? null : { ...costs, batch: decoding.length, rate: best!.rate, best: best!.lengths[i]! };
    const length = prospect.reason === null ? lengthOf(sequence, prospect, known) : plain(sequence, prospect.reason);
    choices.set(sequence, { length, patience: length === 0 ? null : patienceOf(sequence, prospect, known) });
  });
  return choices;
}

/** Forced drafts have the length that is asked for, those of n-grams cost nothing. */
function patienceOf({ request, speculation }: Sequence, prospect: Prospect, known: Known | null): Patience | null {
  if (request.speculation.force || prospect.foreseen !== null || known === null) return null;
  return { acceptances: speculation!.acceptances, least: leastReach(prospect, known, known.rate) };
}

interface Known extends Costs {
  /** Sequences that decode. */
  readonly batch: number;
  /** Tokens a millisecond that come of the best lengths. */
  readonly rate: number;
  /** Tokens that are best drafted, whatever has to be read for it. */
  readonly best: number;
}

function lengthOf(sequence: Sequence, prospect: Prospect, known: Known | null): number {
  const record = sequence.speculation!;
  const limit = prospect.acceptances.length;
  if (sequence.request.speculation.force) return limit;
  if (known === null) return plain(sequence, 'a plain pass was measured, to compare with');
  if (known.best === 0) {
    const isTried = prospect.foreseen === null && prospect.readingMs === 0 && record.declined();
    return isTried ? Math.min(TRIAL_TOKENS, limit) : plain(sequence, DOES_NOT_PAY);
  }
  if (!readingPays(sequence, prospect, known)) return plain(sequence, READS_TOO_LONG);
  record.resumed();
  return prospect.isMeasured ? known.best : Math.min(TRIAL_TOKENS, known.best);
}

/** Nobody knows how long a text will be: one that has gone on for long is expected to go on for as long again. */
function readingPays({ request, generated }: Sequence, prospect: Prospect, { best, batch, ...costs }: Known): boolean {
  const expected = Math.min(request.maxTokens - generated, EXPECTED_TOKENS + generated);
  return READING_MARGIN * prospect.readingMs < expected * savedMs(prospect, { ...costs, plain: costs.plain / batch }, best);
}

function foreseenText({ id, text, promptTokens, request }: Sequence, maxTokens: number): ForeseenText {
  return { sequenceId: id, text, finalTokens: text.length, promptTokens, maxTokens, draftPrompt: request.speculation.draftPromptIds };
}

function plain({ speculation }: Sequence, reason: string): 0 {
  speculation!.plain(reason);
  return 0;
}
