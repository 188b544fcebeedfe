/** Mean, deviation and percentiles of measured values. Pure; used by every table of loadtest/. */

export interface Distribution {
  readonly mean: number;
  readonly median: number;
  readonly std: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** Linear interpolation between closest ranks, as numpy.percentile. NaN without values. */
export function percentile(ascending: readonly number[], percent: number): number {
  if (ascending.length === 0) return NaN;
  const rank = (percent / 100) * (ascending.length - 1);
  const below = ascending[Math.floor(rank)]!;
  return below + (ascending[Math.ceil(rank)]! - below) * (rank % 1);
}

/** null without values: a figure that was not measured is not 0. */
export function describe(values: readonly number[]): Distribution | null {
  if (values.length === 0) return null;
  const ascending = [...values].sort((a, b) => a - b);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  const at = (percent: number): number => percentile(ascending, percent);
  return { mean, median: at(50), std: Math.sqrt(variance), p90: at(90), p95: at(95), p99: at(99), max: at(100) };
}
