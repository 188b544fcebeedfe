import { expect, test } from 'vitest';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import { SequenceRecord } from '../../scheduler/sequence-record.ts';

const settings: AttentionSettings = {
  attention: 'lserve', tokenBudget: 2048, sinkTokens: 128, localTokens: 1024, streamingHeads: 0, selectionInterval: 4,
  selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};

test.each<[Partial<AttentionSettings>, string]>([
  [{}, 'lserve attention: retrieval heads read 2048 tokens of 9000'],
  [{ streamingHeads: 0.5 }, 'lserve attention: 50 % of the heads read the first 128 and the last 1024 tokens, retrieval heads read 2048 tokens of 9000'],
  [{ streamingHeads: 1 }, 'lserve attention: all heads read the first 128 and the last 1024 tokens of 9000'],
  [{ attention: 'streaming' }, 'streaming attention: all heads read the first 128 and the last 1024 tokens of 9000'],
])('with %j the reason of an approximate answer names the heads that there are', (changes, reason) => {
  const metrics = new SequenceRecord().toMetrics({
    submission: { submittedMs: 0 }, request: { attention: { ...settings, ...changes }, speculation: { eta: 0 }, sampling: { temperature: 0 } }, speculation: null, policy: { isExact: () => false },
    promptTokens: 8000, generated: 1000, highWater: 9000,
  }, 1);
  expect(metrics).toMatchObject({ exactness: 'approximate', exactnessReason: reason });
});
