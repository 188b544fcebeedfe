import { describe, expect, test } from 'vitest';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import type { AttentionSettings, PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import { geometry, pageListCases, settings, table } from './page-lists.cases.ts';

function policy(changes: Partial<AttentionSettings>, heads = geometry): PageListPolicy {
  return createPageListPolicy({ ...settings, ...changes }, heads);
}

pageListCases('dense', (changes) => policy({ attention: 'dense', ...changes }));
pageListCases('streaming', (changes) => policy({ attention: 'streaming', ...changes }));
pageListCases('streaming without sinks', (changes) => policy({ attention: 'streaming', sinkTokens: 0, ...changes }));
pageListCases('streaming, renumbered', (changes) => policy({ attention: 'streaming', renumberPositions: true, ...changes }));
pageListCases('lserve', (changes) => policy({ attention: 'lserve', ...changes }));
pageListCases('lserve, half of the heads streaming', (changes) => policy({ attention: 'lserve', streamingHeads: 0.5, ...changes }));
pageListCases('lserve, query heads picking', (changes) => policy({ attention: 'lserve', selectionPerQueryHead: true, ...changes }));
pageListCases('lserve, dense prefill', (changes) => policy({ attention: 'lserve', sparsePrefill: false, ...changes }));
pageListCases('lserve, all heads streaming', (changes) => policy({ attention: 'lserve', streamingHeads: 1, ...changes }));

const unwindowed = { ...geometry, slidingWindow: [null, null, null] };
const pageOf = (index: number): number => table(6000)[index]!;

describe('dense lists', () => {
  test('are views of the page table, not copies', () => {
    const pages = table(1000);
    expect(policy({}).plan(pages, 1000, 1, 'decode').classes[0]!.fixed.buffer).toBe(pages.buffer);
  });

  test('leave out what lies before a sliding window', () => {
    const plan = policy({}).plan(table(1000), 1000, 1, 'decode');
    expect([...plan.classOf]).toEqual([0, 0, 0, 0, 1, 1]);
    // Position 1000 sees 901..1000: pages 14 and 15.
    expect([...plan.classes[1]!.fixed]).toEqual([pageOf(14), pageOf(15)]);
  });
});

describe('streaming lists', () => {
  test('are sinks and the window from the start of the span on', () => {
    const { classes } = policy({ attention: 'streaming' }, unwindowed).plan(table(2000), 2000, 1, 'decode');
    // Span 1920..2047 is pages 30 and 31; four pages of window lie before it.
    expect([...classes[0]!.fixed]).toEqual([0, 1, 26, 27, 28, 29, 30, 31].map(pageOf));
    expect(classes[0]!.tokens).toBe(7 * 64 + 16);
  });

  test('hold a constant number of pages however long the text', () => {
    const streaming = policy({ attention: 'streaming' }, unwindowed);
    for (const start of [10_000, 1_000_000, 1_000_000_000]) {
      const { from, to } = streaming.releasablePages(start);
      expect(Math.ceil(start / 64) - (to - from)).toBeLessThanOrEqual(2 + 4 + 2);
    }
  });

  test('keep what a sliding window still reaches', () => {
    const wide = { ...geometry, slidingWindow: [null, null, 1000] };
    expect(policy({ attention: 'streaming' }, wide).releasablePages(5000)).toEqual({ from: 2, to: Math.floor((5000 - 999) / 64) });
  });

  test('move the sinks to just before the window when positions are renumbered', () => {
    const { classes } = policy({ attention: 'streaming', renumberPositions: true }, unwindowed).plan(table(2000), 2000, 1, 'decode');
    expect([...classes[0]!.positionDelta!]).toEqual([24 * 64, 24 * 64, 0, 0, 0, 0, 0, 0]);
  });

  test.each([0, 64, 256])('number the slots of the list 0, 1, 2 ... however long the text, with %i sink tokens', (sinkTokens) => {
    const renumbering = policy({ attention: 'streaming', renumberPositions: true, sinkTokens }, unwindowed);
    for (let start = 1; start < 10_000_000; start = Math.ceil(start * 1.07)) {
      const pages = Int32Array.from({ length: Math.ceil(start / 64) }, (_, i) => i);
      const { fixed, positionDelta, tokens } = renumbering.plan(pages, start, 1, 'decode').classes[0]!;
      const positions = [...fixed].flatMap((page, i) =>
        Array.from({ length: Math.min(64, tokens - i * 64) }, (_, slot) => page * 64 + slot + (positionDelta?.[i] ?? 0)));
      // The query stands at `start`, in the text as in the list.
      expect(positions).toEqual(Array.from({ length: tokens }, (_, slot) => start - tokens + slot));
      expect(tokens).toBeLessThanOrEqual(sinkTokens + 256 + 128);
    }
  });
});

describe('lserve lists', () => {
  test('are a sink page, two recent pages, the partial one, and picks up to the budget', () => {
    const { classes } = policy({ attention: 'lserve' }, unwindowed).plan(table(2000), 2000, 1, 'decode');
    expect([...classes[0]!.fixed]).toEqual([0, 29, 30, 31].map(pageOf));
    expect(classes[0]!.pick).toBe(8 - 4);
    expect(classes[0]!.candidates).toEqual(table(2000).subarray(1, 29));
    expect(classes[0]!.tokens).toBeLessThanOrEqual(512);
  });

  test('never exceed the budget, and pick the same number at every position beyond it', () => {
    const lserve = policy({ attention: 'lserve' }, unwindowed);
    for (let start = 0; start < 3000; start++) {
      const list = lserve.plan(table(3000), start, 1, 'decode').classes[0]!;
      expect(list.tokens).toBeLessThanOrEqual(512);
      expect(list.pick).toBe(start <= 512 ? 0 : 4);
    }
  });

  test('pick one page under the smallest budget that the API takes', () => {
    const picks = (tokenBudget: number) => policy({ attention: 'lserve', tokenBudget }, unwindowed).plan(table(2000), 2000, 1, 'decode').classes[0]!.pick;
    expect([256, 320, 384].map(picks)).toEqual([1, 1, 2]);
  });

  test('give the most streaming-like heads of the model a window', () => {
    const plan = policy({ attention: 'lserve', streamingHeads: 0.5 }, unwindowed).plan(table(2000), 2000, 1, 'decode');
    expect([...plan.classOf]).toEqual([1, 1, 0, 1, 0, 0]);
    expect([...plan.classes[1]!.fixed]).toEqual([0, 1, 26, 27, 28, 29, 30, 31].map(pageOf));
  });

  test('leave to the retrieval heads what the streaming heads have passed', () => {
    const lserve = policy({ attention: 'lserve', streamingHeads: 0.5 });
    expect([...lserve.passingHeads]).toEqual([0, 1, 3]);
    expect([lserve.passedPages(500), lserve.passedPages(2000)]).toEqual([{ from: 2, to: 2 }, { from: 2, to: 26 }]);
    expect([...policy({ attention: 'lserve' }).passingHeads]).toEqual([]);
  });

  test('select afresh in prefill, at every interval and at every page border', () => {
    const lserve = policy({ attention: 'lserve', selectionInterval: 24 });
    const selections = [1024, 1025, 1032, 1056, 1088].map((start) => lserve.plan(table(2000), start, 1, 'decode').selection);
    expect(selections).toEqual(['fresh', 'reuse', 'fresh', 'fresh', 'fresh']);
    expect(lserve.plan(table(2000), 1025, 1, 'prefill').selection).toBe('fresh');
  });

  test('leave retrieval heads dense in prefill when asked to', () => {
    const lserve = policy({ attention: 'lserve', sparsePrefill: false }, unwindowed);
    expect(lserve.plan(table(2000), 1920, 80, 'prefill').classes[0]!.fixed).toHaveLength(30);
    expect(lserve.maxChunkTokens(1920)).toBe(Infinity);
  });
});

describe('namespaces of prefix pages', () => {
  const nameOf = (changes: Partial<AttentionSettings>) => policy(changes).prefixNamespace;

  test('are one for everything that prefills densely', () => {
    expect(nameOf({ tokenBudget: 1024 })).toBe(nameOf({ sinkTokens: 0 }));
    expect(nameOf({ attention: 'lserve', sparsePrefill: false })).toBe(nameOf({}));
  });

  test('do not depend on what decode alone uses', () => {
    expect(nameOf({ attention: 'lserve', selectionInterval: 1 })).toBe(nameOf({ attention: 'lserve', selectionInterval: 8 }));
  });

  test.each<Partial<AttentionSettings>>([
    { attention: 'streaming' }, { attention: 'streaming', localTokens: 512 }, { attention: 'streaming', renumberPositions: true },
    { attention: 'lserve' }, { attention: 'lserve', tokenBudget: 1024 }, { attention: 'lserve', streamingHeads: 0.5 },
    { attention: 'lserve', streamingHeads: 0.5, sinkTokens: 64 }, { attention: 'lserve', streamingHeads: 0.5, sparsePrefill: false },
  ])('differ by what a prompt token can see: %o', (changes) => {
    const others = [{}, { attention: 'streaming', localTokens: 1024 }, { attention: 'lserve', streamingHeads: 1 }] as const;
    for (const other of others) expect(nameOf(changes)).not.toBe(nameOf(other));
  });
});
