/**
 * How many tokens to draft for each sequence of a step, so that the step gives most tokens a millisecond: the best
 * numbers at a given rate, then the rate that they give, a few times over (Dinkelbach's way to maximise a ratio).
 * A sequence for which that is 0 decodes plainly. Pure. Called by drafting.ts.
 */
import type { Costs } from './pass-costs.ts';

export interface Draftable {
  /** Of each token that may be drafted: probability that it is accepted, those before it being so. Empty for a sequence that drafts nothing. */
  readonly acceptances: readonly number[];
  /** Milliseconds to draft one token. */
  readonly draftMs: number;
}

const ROUNDS = 4;

export interface Lengths {
  /** One for each. */
  readonly lengths: readonly number[];
  /** Tokens a millisecond that come of it. */
  readonly rate: number;
}

export function draftLengths(sequences: readonly Draftable[], costs: Costs): Lengths {
  let rate = sequences.length / costs.plain;
  let lengths: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    lengths = sequences.map((sequence) => bestLength(sequence, costs, rate));
    const ms = sequences.reduce((sum, sequence, i) => sum + extraMs(sequence, costs, lengths[i]!), costs.plain);
    rate = sequences.reduce((sum, { acceptances }, i) => sum + expectedTokens(acceptances, lengths[i]!), 0) / Math.max(ms, 1e-9);
  }
  return { lengths, rate };
}

/** Tokens that a pass with the first `drafted` tokens gives: 1 + a0 + a0 a1 + ... (Leviathan et al., arXiv 2211.17192, for one a). */
export function expectedTokens(acceptances: readonly number[], drafted: number): number {
  let sum = 1;
  let reached = 1;
  for (let i = 0; i < drafted; i++) sum += reached *= acceptances[i]!;
  return sum;
}

/** Milliseconds that drafting so many tokens saves for each token that comes of it. `costs`: of this sequence's part of a step. */
export function savedMs(sequence: Draftable, costs: Costs, drafted: number): number {
  return costs.plain - (costs.plain + extraMs(sequence, costs, drafted)) / expectedTokens(sequence.acceptances, drafted);
}

/**
 * Least probability that all tokens of a draft so far are accepted at which another one is worth its milliseconds, at the
 * rate at which tokens come.
 */
export function leastReach({ acceptances, draftMs }: Draftable, { perToken }: Costs, rate: number): number {
  return Math.min(1, rate * (perToken + draftMs) / acceptances[0]!);
}

function bestLength(sequence: Draftable, costs: Costs, rate: number): number {
  let best = 0;
  let most = 1;
  let expected = 1;
  let reached = 1;
  for (let length = 1; length <= sequence.acceptances.length; length++) {
    expected += reached *= sequence.acceptances[length - 1]!;
    const worth = expected - rate * extraMs(sequence, costs, length);
    if (worth > most) [best, most] = [length, worth];
  }
  return best;
}

function extraMs({ draftMs }: Draftable, { perPass, perToken }: Costs, length: number): number {
  return length === 0 ? 0 : Math.max(0, perPass + perToken * length) + draftMs * length;
}
