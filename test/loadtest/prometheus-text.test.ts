import { describe, expect, it } from 'vitest';
import { histogramQuantile, parseMetrics, sumOf } from '../../loadtest/prometheus-text.ts';

const TEXT = `# HELP x Things.
# TYPE x gauge
x{model="a",state="held"} 3
x{model="a",state="free"} 4.5
y 1e3
h_bucket{le="0.001",engine="0"} 10
h_bucket{le="0.01",engine="0"} 30
h_bucket{le="+Inf",engine="0"} 40
h_sum{engine="0"} 0.5
`;

describe('parseMetrics', () => {
  it('reads names, labels and values', () => {
    const samples = parseMetrics(TEXT);
    expect(sumOf(samples, 'x')).toBe(7.5);
    expect(sumOf(samples, 'x', { state: 'held' })).toBe(3);
    expect(sumOf(samples, 'y')).toBe(1000);
    expect(sumOf(samples, 'z')).toBeNull();
  });

  it('reads label values that hold quotes, commas and braces', () => {
    expect(sumOf(parseMetrics(String.raw`x{a="b\",c={}",d="e"} 1`), 'x', { d: 'e' })).toBe(1);
  });
});

describe('histogramQuantile', () => {
  const none = parseMetrics('');
  it('interpolates within the bucket', () => {
    expect(histogramQuantile(none, parseMetrics(TEXT), 'h', 0.5)).toBeCloseTo(0.001 + 0.009 / 2, 12);
    expect(histogramQuantile(none, parseMetrics(TEXT), 'h', 0.125)).toBeCloseTo(0.0005, 12);
  });

  it('gives the last finite edge for what lies beyond it', () => {
    expect(histogramQuantile(none, parseMetrics(TEXT), 'h', 0.99)).toBe(0.01);
  });

  it('counts only what was added between two scrapes', () => {
    const before = parseMetrics('h_bucket{le="0.001"} 10\nh_bucket{le="0.01"} 10\nh_bucket{le="+Inf"} 10');
    expect(histogramQuantile(before, parseMetrics(TEXT), 'h', 0.5)).toBeCloseTo(0.001 + (0.009 * 15) / 20, 12);
    expect(histogramQuantile(parseMetrics(TEXT), parseMetrics(TEXT), 'h', 0.5)).toBeNull();
  });
});
