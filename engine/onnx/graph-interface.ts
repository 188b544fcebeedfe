/**
 * What the builder of the graph and those who run it must agree on: precisions, names of inputs and outputs,
 * the layout of page statistics. Called by everything in this folder.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';

export type OnnxPrecision = 'int8' | 'fp32';

/** Logical pages per page; a row of statistics is [LOGICAL_PAGES, max | min, headDim]. */
export const LOGICAL_PAGES = PAGE_TOKENS / LOGICAL_PAGE_TOKENS;

/**
 * Statistics of int8 keys are kept as key + 128: the int8 product is several times as fast with an unsigned
 * left side on CPUs without AMX.
 */
export const STATISTICS_OFFSET = 128;

/** Names of the inputs that all layers share: KV memory. */
export const MEMORY_NAMES = { keys: 'keys', values: 'values', statistics: 'statistics' } as const;

/** Names of one layer's inputs and outputs; run-inputs.ts fills them. */
export function layerNames(layer: number) {
  const name = (what: string): string => `${what}.${layer}`;
  return {
    rows: name('rows'), cuts: name('cuts'), past: name('past'), totals: name('totals'),
    items: name('items'), candidates: name('candidates'), bias: name('bias'), order: name('order'),
    queryScale: name('queryScale'), keyInverse: name('keyInverse'), valueInverse: name('valueInverse'), outputScale: name('outputScale'),
    newKeys: name('newKeys'), newValues: name('newValues'), picked: name('picked'), queries: name('queries'),
  };
}

export type LayerNames = ReturnType<typeof layerNames>;
