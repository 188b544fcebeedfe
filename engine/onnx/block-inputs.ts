/**
 * The inputs of attention by blocks (block-attention-graph.ts): which chunks it serves, and the rows, places and shapes of
 * a run of theirs. Full blocks hold past tokens only; the last one holds what is left of them and the chunk's own. Pure.
 * Called by run-planner.ts and run-inputs.ts.
 */
import { Tensor } from 'onnxruntime-node';
import { BLOCK_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { ListItem } from './run-lists.ts';

export const blockNames = {
  isBlocks: 'blocks', cuts: 'blocks.cuts', places: 'blocks.places', mask: 'blocks.mask',
  tokenShape: 'blocks.tokenShape', headShape: 'blocks.headShape', fullShape: 'blocks.fullShape', lastShape: 'blocks.lastShape',
} as const;

/** Shorter texts decode through the other kernel: the many nodes of this one cost more than they save. */
const LEAST_TOKENS = 8 * BLOCK_TOKENS;
const BLOCK_PAGES = BLOCK_TOKENS / PAGE_TOKENS;
const MASKED = -1e30;

/** Whether the chunk decodes by blocks: it sees its whole text, a long one, and stays inside one block. */
export function readsBlocks({ phase, start, tokens, attention: { classes } }: Chunk): boolean {
  const [{ tokens: listed, pick, positionDelta }] = classes as [(typeof classes)[number]];
  return phase === 'decode' && start >= LEAST_TOKENS && classes.length === 1 && listed === start && pick === 0
    && positionDelta === null && (start % BLOCK_TOKENS) + tokens.length <= BLOCK_TOKENS;
}

/** Chunks of one run have as many full blocks, so that their sums have as many terms; and as many tokens. */
export function blockCount({ start }: Pick<Chunk, 'start'>): number {
  return Math.floor(start / BLOCK_TOKENS);
}

/** Rows of KV memory: the full blocks of every list, then the last block of each; behind the end of a list, its last page again. */
export function blockRows(items: readonly ListItem[], numBlocks: number): Int32Array {
  const full = numBlocks * BLOCK_PAGES;
  const rows = new Int32Array(items.length * (full + BLOCK_PAGES));
  const pages = new Int32Array(full + BLOCK_PAGES);
  items.forEach(({ fixed, fillRows }, item) => {
    pages.set(fixed);
    pages.fill(fixed.at(-1)!, fixed.length);
    fillRows(rows, item * full, pages.subarray(0, full));
    fillRows(rows, items.length * full + item * BLOCK_PAGES, pages.subarray(full));
  });
  return rows;
}

type Geometry = Pick<ModelSpec, 'heads' | 'kvHeads' | 'headDim'>;

export function blockFeeds(chunks: readonly Chunk[], geometry: Geometry): Record<string, Tensor> {
  const { heads, kvHeads, headDim } = geometry;
  const [sequences, numTokens, numBlocks] = [chunks.length, chunks[0]!.tokens.length, blockCount(chunks[0]!)];
  return {
    [blockNames.isBlocks]: flag(true),
    [blockNames.cuts]: shape(sequences * kvHeads * numBlocks * BLOCK_PAGES, sequences * kvHeads * BLOCK_PAGES),
    [blockNames.places]: places(chunks, kvHeads),
    [blockNames.mask]: mask(chunks, heads / kvHeads),
    [blockNames.tokenShape]: shape(sequences, numTokens, kvHeads, -1),
    [blockNames.headShape]: shape(sequences, kvHeads, numTokens, -1),
    [blockNames.fullShape]: shape(sequences, kvHeads, numBlocks, BLOCK_TOKENS, headDim),
    [blockNames.lastShape]: shape(sequences, kvHeads, 1, BLOCK_TOKENS, headDim),
  };
}

/** For runs that read no blocks: every input of a graph must be given. */
export function noBlockFeeds(): Record<string, Tensor> {
  const none = shape(1, 1, 1, 1);
  return {
    [blockNames.isBlocks]: flag(false), [blockNames.cuts]: shape(1, 1),
    [blockNames.places]: new Tensor('int64', new BigInt64Array(1), [1, 1]),
    [blockNames.mask]: new Tensor('float32', new Float32Array(BLOCK_TOKENS), [1, 1, 1, 1, BLOCK_TOKENS]),
    [blockNames.tokenShape]: none, [blockNames.headShape]: none, [blockNames.fullShape]: shape(1, 1, 1, 1, 1), [blockNames.lastShape]: shape(1, 1, 1, 1, 1),
  };
}

/** Where the new tokens of each head stand among the rows of all last blocks. [sequences * kvHeads * tokens, 1] */
function places(chunks: readonly Chunk[], kvHeads: number): Tensor {
  const all = chunks.flatMap(({ start, tokens }, sequence) =>
    Array.from({ length: kvHeads * tokens.length }, (_, i) => {
      const list = sequence * kvHeads + Math.floor(i / tokens.length);
      return BigInt(list * BLOCK_TOKENS + (start % BLOCK_TOKENS) + (i % tokens.length));
    }));
  return new Tensor('int64', BigInt64Array.from(all), [all.length, 1]);
}

/** 0 where a token sees a place of its last block. Rows: tokens, and the query heads of a KV head for each. [sequences, 1, 1, rows, BLOCK_TOKENS] */
function mask(chunks: readonly Chunk[], group: number): Tensor {
  const numRows = chunks[0]!.tokens.length * group;
  const data = new Float32Array(chunks.length * numRows * BLOCK_TOKENS);
  chunks.forEach(({ start }, sequence) => {
    for (let row = 0; row < numRows; row++) {
      const first = (sequence * numRows + row) * BLOCK_TOKENS;
      data.fill(MASKED, first + (start % BLOCK_TOKENS) + Math.floor(row / group) + 1, first + BLOCK_TOKENS);
    }
  });
  return new Tensor('float32', data, [chunks.length, 1, 1, numRows, BLOCK_TOKENS]);
}

function shape(...sizes: number[]): Tensor {
  return new Tensor('int64', BigInt64Array.from(sizes, BigInt), [sizes.length]);
}

function flag(value: boolean): Tensor {
  return new Tensor('bool', Uint8Array.of(value ? 1 : 0), []);
}
