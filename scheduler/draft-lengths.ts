/**
 * How many tokens to draft for each sequence of a step, so that the step gives most tokens a millisecond: the best
 * numbers at a given rate, then the rate that they give, a few times over (Dinkelbach's way to maximise a ratio).
 * A sequence for which that is 0 decodes plainly. Pure. Called by drafting.ts.
 */
import type { Costs } from './pass-costs.ts';

export interface Draftable {
  /** Probability that a drafted token is accepted, those before it being so; below 1. */
  readonly acceptance: number;
  /** Milliseconds to draft one token. */
  readonly draftMs: number;
  /** Most tokens that may be drafted; 0 for a sequence that drafts nothing. */
  readonly limit: number;
}

const ROUNDS = 4;

/** One number for each. */
export function draftLengths(sequences: readonly Draftable[], costs: Costs): number[] {
  let rate = sequences.length / costs.plain;
  let lengths: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    lengths = sequences.map((sequence) => bestLength(sequence, costs, rate));
    const ms = sequences.reduce((sum, sequence, i) => sum + extraMs(sequence, costs, lengths[i]!), costs.plain);
    rate = sequences.reduce((sum, { acceptance }, i) => sum + expectedTokens(acceptance, lengths[i]!), 0) / Math.max(ms, 1e-9);
  }
  return lengths;
}

/** Tokens that a pass with `drafted` tokens gives: 1 + a + a^2 + ... + a^drafted (Leviathan et al., arXiv 2211.17192). */
export function expectedTokens(acceptance: number, drafted: number): number {
  return (1 - acceptance ** (drafted + 1)) / (1 - acceptance);
}

function bestLength(sequence: Draftable, costs: Costs, rate: number): number {
  let best = 0;
  let most = 1;
  for (let length = 1; length <= sequence.limit; length++) {
    const worth = expectedTokens(sequence.acceptance, length) - rate * extraMs(sequence, costs, length);
    if (worth > most) [best, most] = [length, worth];
  }
  return best;
}

function extraMs({ draftMs }: Draftable, { perPass, perToken }: Costs, length: number): number {
  return length === 0 ? 0 : Math.max(0, perPass + perToken * length) + draftMs * length;
}
