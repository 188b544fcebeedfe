/**
 * When requests are sent. Open loop: a Poisson process of a given rate, whatever the server does. A bound
 * on concurrency is the runner's (main.ts), not a matter of arrival. Knows no HTTP.
 */
import type { Random } from './random.ts';

/** Milliseconds after the start at which each request is sent. [count], ascending; all 0 for rate Infinity. */
export function arrivalTimesMs(count: number, ratePerSecond: number, random: Random): number[] {
  const times: number[] = [];
  let nowMs = 0;
  for (let i = 0; i < count; i++) {
    times.push(nowMs);
    if (ratePerSecond !== Infinity) nowMs += (-Math.log(1 - random.next()) / ratePerSecond) * 1000;
  }
  return times;
}

/** Lets at most `limit` tasks run at once; the others wait in order. */
export class Gate {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(limit: number) {
    this.#free = limit;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((enter) => this.#waiting.push(enter));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
