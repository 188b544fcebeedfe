// What fits into the memory of a device: as many pages as there is room for, and not one more.
import { describe, expect, test } from 'vitest';
import { KvMemory, type KvLayout } from '../../../engine/cuda/kv-memory.ts';
import { MemoryBudget } from '../../../engine/cuda/memory-budget.ts';
import { parseModelSpec } from '../../../engine/model/spec.ts';
import { PageRows } from '../../../engine/page-rows.ts';
import { MAX_MOVED_PAGES } from '../../../kvcache/page-lists/page-list.ts';

const GIB = 2 ** 30;

function budgetOf(kv: KvLayout, { contextLength = 131_072, vocab = 128_256, spareBytes = 0 } = {}) {
  const model = parseModelSpec({
    model_type: 'llama', hidden_act: 'silu', num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 8, hidden_size: 4096,
    intermediate_size: 14336, vocab_size: vocab, max_position_embeddings: contextLength, rms_norm_eps: 1e-5, rope_theta: 500_000,
  });
  return { model, budget: new MemoryBudget({ model, kv, vocabStride: vocab, multiprocessors: 132, stepTokens: 8192, longestText: contextLength, spareBytes }) };
}

describe.each<[string, KvLayout]>([['16 bits', { format: 'element', widens: true }], ['8 bits', { format: 'fp8', widens: true }], ['8 bits, read as they are', { format: 'int8', widens: false }]])('%s', (_, kv) => {
  test.each([[8, 131_072], [60, 131_072], [60, 10_000_000], [20, 10_000_000], [130, 4096]])('in %i GiB, for texts of up to %i tokens', (gibibytes, contextLength) => {
    const { model, budget } = budgetOf(kv, { contextLength });
    const free = gibibytes * GIB;
    const bytesOf = (pages: number): number => {
      const wide = Math.min(budget.widePages, PageRows.idsFor(pages) + MAX_MOVED_PAGES);
      return budget.reserved + pages * budget.pageBytes + wide * KvMemory.widePageBytes(model, kv);
    };
    const pages = budget.pagesIn(free);
    expect(pages).toBeGreaterThan(0);
    expect(bytesOf(pages)).toBeLessThanOrEqual(free);
    expect(bytesOf(pages + 1)).toBeGreaterThan(free);
  });
});

test('what is left for others is not given out', () => {
  const kv: KvLayout = { format: 'element', widens: true };
  const [alone, beside] = [budgetOf(kv).budget, budgetOf(kv, { spareBytes: 4 * GIB }).budget];
  expect(alone.pagesIn(40 * GIB) - beside.pagesIn(40 * GIB)).toBeCloseTo(4 * GIB / alone.pageBytes, -1);
  expect(alone.pagesIn(alone.reserved)).toBe(0);
});

test('rows of logits that score prompts: 256 MB of them, at least those of one chunk', () => {
  const rows = (vocab: number): number => budgetOf({ format: 'element', widens: true }, { vocab }).budget.scoredRows;
  expect([8192, 128_256, 1_000_000].map(rows)).toEqual([8192, 523, 128]);
});
