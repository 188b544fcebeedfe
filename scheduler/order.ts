/**
 * Who goes first, as pure comparisons of sequences: negative means that `a` does. Called by scheduler.ts
 * and live-sequences.ts.
 */
import type { Sequence } from './sequence.ts';

export type Order = (a: Sequence, b: Sequence) => number;
type ServiceOf = (tenant: string) => number;

/** Who keeps pages when they run out: the urgent first, then the older. The last is the first victim. */
export const byRank: Order = (a, b) => a.request.priority - b.request.priority || byArrival(a, b);

/** Who starts next: within a priority, streams that were interrupted, then the tenant served least, then the older. */
export function byTurn(serviceOf: ServiceOf): Order {
  return (a, b) => a.request.priority - b.request.priority || wasPreempted(b) - wasPreempted(a) || byService(serviceOf)(a, b) || byArrival(a, b);
}

/**
 * Who prefills first. Steps alternate between the older and the one with the least left to compute: a short
 * prompt passes a long one, and the long one still advances in every other step.
 */
export function byPrefill(serviceOf: ServiceOf, stepNumber: number): Order {
  const last: Order = stepNumber % 2 === 0 ? byArrival : (a, b) => a.remaining - b.remaining || byArrival(a, b);
  return (a, b) => a.request.priority - b.request.priority || byService(serviceOf)(a, b) || last(a, b);
}

function byService(serviceOf: ServiceOf): Order {
  return (a, b) => serviceOf(a.request.tenant) - serviceOf(b.request.tenant);
}

function byArrival(a: Sequence, b: Sequence): number {
  return a.submission.arrival - b.submission.arrival || a.choice - b.choice;
}

function wasPreempted({ record }: Sequence): number {
  return record.preemptions > 0 ? 1 : 0;
}
