/** Reads figures out of a Prometheus exposition text. Pure; used where a benchmark asks the server's own metrics. */

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export type Samples = readonly Sample[];

export function parseMetrics(text: string): Samples {
  return text.split('\n').flatMap((line) => {
    const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!match) return [];
    const labels = Object.fromEntries([...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((label) => [label[1]!, label[2]!]));
    return [{ name: match[1]!, labels, value: match[3] === '+Inf' ? Infinity : Number(match[3]) }];
  });
}

/** Sum over all series of this name whose labels hold `labels`; null when there is none. */
export function sumOf(samples: Samples, name: string, labels: Readonly<Record<string, string>> = {}): number | null {
  const found = samples.filter((sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value));
  return found.length === 0 ? null : found.reduce((sum, { value }) => sum + value, 0);
}

/**
 * Quantile of what a histogram counted between two scrapes, interpolated within its bucket as Prometheus'
 * histogram_quantile does. null when it counted nothing.
 */
export function histogramQuantile(before: Samples, after: Samples, name: string, quantile: number): number | null {
  const edges = [...new Set(after.filter((sample) => sample.name === `${name}_bucket`).map((sample) => sample.labels['le']!))];
  const buckets = edges
    .map((edge) => ({ edge: edge === '+Inf' ? Infinity : Number(edge), count: countBelow(after, name, edge) - countBelow(before, name, edge) }))
    .sort((a, b) => a.edge - b.edge);
  const total = buckets.at(-1)?.count ?? 0;
  if (total === 0) return null;
  const rank = quantile * total;
  const at = buckets.findIndex(({ count }) => count >= rank);
  const lower = buckets[at - 1] ?? { edge: 0, count: 0 };
  const upper = buckets[at]!;
  if (upper.edge === Infinity) return lower.edge;
  return lower.edge + ((upper.edge - lower.edge) * (rank - lower.count)) / (upper.count - lower.count);
}

function countBelow(samples: Samples, name: string, edge: string): number {
  return sumOf(samples, `${name}_bucket`, { le: edge }) ?? 0;
}
