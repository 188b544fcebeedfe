import { describe, expect, it } from 'vitest';
import type { StreamResult } from '../../loadtest/client.ts';
import { parseObjectives } from '../../loadtest/options.ts';
import { outcomeOf, summarise, summariseByClass, toTable, toVllmRecord } from '../../loadtest/report.ts';
import { describe as distribution, percentile } from '../../loadtest/statistics.ts';

function result(over: Partial<StreamResult>): StreamResult {
  return { status: 200, sentMs: 1000, contentMs: [], endMs: 0, text: '', finishReason: 'length', usage: null, metrics: null, error: null, cancelled: false, ...over };
}

/** TTFT 100, gaps 10 and 30, E2E 140; 5 tokens in 3 chunks. */
const good = result({ contentMs: [1100, 1110, 1140], usage: { prompt_tokens: 50, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 20 } } });
const slow = result({ contentMs: [3000, 3500], usage: { prompt_tokens: 70, completion_tokens: 2 } });

describe('summarise', () => {
  it('computes TTFT, ITL, TPOT and E2E as vLLM defines them', () => {
    const { latencies } = summarise([{ classTokens: 1, result: good }], {});
    expect(latencies.ttft?.mean).toBe(100);
    expect(latencies.itl).toMatchObject({ mean: 20, median: 20, max: 30 });
    expect(latencies.tpot?.mean).toBe(40 / 4);
    expect(latencies.e2el?.mean).toBe(140);
  });

  it('leaves an answer of one token out of TPOT', () => {
    const one = result({ contentMs: [1100], usage: { prompt_tokens: 1, completion_tokens: 1 } });
    const { latencies } = summarise([{ classTokens: 1, result: one }], {});
    expect(latencies.tpot).toBeNull();
    expect(latencies.ttft?.mean).toBe(100);
  });

  it('counts outcomes apart and measures finished requests only', () => {
    const results = [good, result({ status: 429, error: '429' }), result({ status: 503, error: '503' }), result({ cancelled: true, contentMs: [1001] }), result({ status: null, error: 'gone' })];
    const summary = summarise(results.map((one) => ({ classTokens: 1, result: one })), {});
    expect(summary).toMatchObject({ requests: 5, completed: 1, refused429: 1, refused503: 1, cancelled: 1, failed: 1, inputTokens: 50, cachedTokens: 20, outputTokens: 5 });
    expect(summary.latencies.ttft?.max).toBe(100);
  });

  it('calls a request good only when it meets every objective', () => {
    const requests = [good, slow].map((one) => ({ classTokens: 1, result: one }));
    const goodOf = (objectives: string): number => summarise(requests, parseObjectives(objectives)).good;
    expect([goodOf(''), goodOf('ttft:100'), goodOf('ttft:99'), goodOf('ttft:9999,tpot:10'), goodOf('e2el:2500')]).toEqual([2, 1, 0, 1, 2]);
  });

  it('treats an empty stream without error as failed', () => {
    expect(outcomeOf(result({}))).toBe('failed');
  });
});

describe('tables and records', () => {
  const requests = [{ classTokens: 16, result: good }, { classTokens: 4, result: slow }];

  it('gives a row per class, short ones first', () => {
    const classes = summariseByClass(requests, {});
    expect([...classes.keys()]).toEqual([4, 16]);
    const lines = toTable(new Map([...classes].map(([tokens, summary]) => [`${tokens} tokens`, summary])), 2).split('\n');
    expect(lines).toHaveLength(3);
    expect(new Set(lines.map((line) => line.length)).size).toBe(1);
    expect(lines[2]).toContain('40%');
  });

  it('uses the key names of vllm bench serve', () => {
    const record = toVllmRecord(summarise(requests, { ttft: 100 }), 2);
    expect(record).toMatchObject({ completed: 2, total_input_tokens: 120, total_output_tokens: 7, request_throughput: 1, request_goodput: 0.5, output_throughput: 3.5, mean_ttft_ms: 1050, median_ttft_ms: 1050 });
    for (const metric of ['ttft', 'tpot', 'itl', 'e2el']) {
      for (const figure of ['mean', 'median', 'std', 'p99']) expect(record).toHaveProperty(`${figure}_${metric}_ms`);
    }
  });
});

describe('statistics', () => {
  it('interpolates percentiles as numpy does', () => {
    expect(percentile([1, 2, 3, 4], 50)).toBe(2.5);
    expect(percentile([1, 2, 3, 4], 90)).toBeCloseTo(3.7, 12);
    expect(percentile([5], 99)).toBe(5);
  });

  it('gives the population deviation, and null for no values', () => {
    expect(distribution([2, 4, 4, 4, 5, 5, 7, 9])?.std).toBe(2);
    expect(distribution([])).toBeNull();
  });
});
