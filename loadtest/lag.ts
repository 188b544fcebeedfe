/** How late this process's own event loop runs: a load generator that lags measures itself. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** Milliseconds beyond the sampling interval. */
export interface Lag {
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface LagMeter {
  read(): Lag;
}

const RESOLUTION_MS = 5;

export function startLagMeter(): LagMeter {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  const toLagMs = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
  return { read: () => ({ p99Ms: toLagMs(histogram.percentile(99)), maxMs: toLagMs(histogram.max) }) };
}
