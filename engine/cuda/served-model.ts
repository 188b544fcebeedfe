/**
 * What a model's configuration means for the CUDA engine: whether it can be served, by which kernels, and what the engine
 * says of itself. Pure. Called by cuda-engine.ts.
 */
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { UnsupportedModelError, type EngineSpec } from '../engine.ts';
import type { Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import { KvMemory, type KvLayout } from './kv-memory.ts';
import type { RunModel } from './run-tables.ts';

const MOST_GROUP = 64;
/** attend_hopper: query rows of a block, and the head widths that it is written for. */
const HOPPER = { capability: 90, rows: 128, headDims: [64, 128], groupRows: 64 } as const;

export function suitsHopper({ headDim, heads, kvHeads }: ModelSpec, capability: number): boolean {
  return capability === HOPPER.capability && HOPPER.headDims.some((width) => width === headDim) && HOPPER.groupRows % (heads / kvHeads) === 0;
}

export function runModel(spec: ModelSpec, rope: Rope, { hopper, widens }: Pick<RunModel, 'widens'> & { readonly hopper: boolean }): RunModel {
  const { layers, kvHeads, heads } = spec;
  return {
    layers, kvHeads, group: heads / kvHeads, pairs: rope.pairs, hopperRows: hopper ? HOPPER.rows : null, hopperScores: hopper, widens,
    hasWindows: spec.slidingWindow.some((window) => window !== null),
    frequencies: spec.rope.type === 'dynamic' ? (tokens) => rope.frequencies(tokens) : null,
  };
}

/** What kernels and products can do. Throws UnsupportedModelError. */
export function checkModel({ hidden, inner, heads, kvHeads, headDim }: ModelSpec): void {
  const widths = { hidden_size: hidden, intermediate_size: inner, 'num_attention_heads * head_dim': heads * headDim, 'num_key_value_heads * head_dim': kvHeads * headDim };
  for (const [name, width] of Object.entries(widths)) {
    if (width % 8 !== 0) throw new UnsupportedModelError(`The cuda engine needs widths that are multiples of 8; config.json: ${name} is ${width}.`);
  }
  if (headDim > 256) throw new UnsupportedModelError(`The cuda engine serves heads of up to 256 channels; config.json: head_dim is ${headDim}.`);
  if (heads / kvHeads > MOST_GROUP) throw new UnsupportedModelError(`The cuda engine serves up to ${MOST_GROUP} query heads for a KV head, this model has ${heads / kvHeads}.`);
}

export function engineSpec(spec: ModelSpec, { precision, headOrder }: Pick<EngineSpec, 'precision' | 'headOrder'>, kv: KvLayout): EngineSpec {
  const { layers, kvHeads, vocab, contextLength, slidingWindow } = spec;
  return {
    engine: 'cuda', precision, layers, kvHeads, vocab, contextLength, slidingWindow, headOrder,
    keysDependOnPromptLength: spec.rope.type === 'dynamic',
    kvBytesPerToken: KvMemory.pageBytes(spec, kv.format) / PAGE_TOKENS,
    ...(kv.format === 'element' ? {} : { kvPrecision: kv.format }),
  };
}
