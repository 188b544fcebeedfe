/**
 * What the benchmarks of the CPU engine share: an engine whose KV memory is full of noise (speed does not
 * depend on what it holds, but on its being there), chunks at any depth, medians. Knows no scheduler.
 * Called by bench.ts and bench-attention.ts.
 */
import { join } from 'node:path';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type AttentionSettings, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { readHeadOrder } from '../model/head-file.ts';
import { readJsonFile } from '../model/model-file-error.ts';
import { parseModelSpec } from '../model/spec.ts';
import { Weights } from '../model/weights.ts';
import { createOnnxEngine, type OnnxEngine } from './onnx-engine.ts';

export interface BenchModel {
  readonly model: string;
  readonly threads: number;
  readonly precision: 'int8' | 'fp32';
  readonly depths: readonly number[];
  readonly batches: readonly number[];
}

export interface BenchEngine {
  readonly engine: OnnxEngine;
  readonly policyOf: (settings: AttentionSettings) => PageListPolicy;
  readonly hasHeads: boolean;
}

export const DEFAULT_MODEL = join(import.meta.dirname, '../../models/longspan-16m');

export const denseSettings: AttentionSettings = {
  attention: 'dense', tokenBudget: 2048, sinkTokens: 128, localTokens: 1024, streamingHeads: 0,
  selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};
export const lserveSettings: AttentionSettings = { ...denseSettings, attention: 'lserve' };
export const seldomSelecting: AttentionSettings = { ...lserveSettings, selectionInterval: 4 };
export const streamingSettings: AttentionSettings = { ...denseSettings, attention: 'streaming' };

/** An engine with room for the longest text in the largest batch. */
export async function loadEngine({ model, threads, precision, depths, batches }: BenchModel): Promise<BenchEngine> {
  const spec = parseModelSpec(await readJsonFile(join(model, 'config.json')));
  const headOrder = await readHeadOrder(model, '', spec);
  const weights = await Weights.open(model, spec);
  const longest = Math.max(...depths) + 1024;
  const pages = Math.ceil(longest / PAGE_TOKENS) * Math.max(...batches);
  const engine = await createOnnxEngine({ spec, weights, precision, threads, pages, headOrder });
  weights.close();
  for (let page = 0; page < pages; page++) engine.memory.poison(page, 1 + (page % 50));
  return { engine, policyOf: (settings) => createPageListPolicy(settings, { ...spec, headOrder }), hasHeads: headOrder !== null };
}

export interface Place {
  readonly engine: OnnxEngine;
  readonly policy: PageListPolicy;
  readonly pageTable: Int32Array;
  readonly sequenceId: number;
  readonly start: number;
  readonly tokens: number;
  readonly phase: Chunk['phase'];
}

/** Decode chunks return all their rows of logits, as sampling and verification need; prefill chunks none. */
export function chunkAt({ engine, policy, pageTable, sequenceId, start, tokens, phase }: Place): Chunk {
  const attention = policy.plan(pageTable, start, tokens, phase);
  const ids = Int32Array.from({ length: tokens }, (_, i) => (i * 31 + start) % engine.spec.vocab);
  return { sequenceId, phase, tokens: ids, start, pageTable, attention, promptTokens: start + tokens, logits: phase === 'decode' ? 'all' : 'none' };
}

/** Pages of a sequence are scattered over memory, as after long service. [batch] of [pages per sequence] */
export function pageTables(engine: OnnxEngine, batch: number): Int32Array[] {
  const perSequence = Math.floor(engine.pages / batch);
  return Array.from({ length: batch }, (_, b) => Int32Array.from({ length: perSequence }, (_, i) => (i * batch + b) % engine.pages));
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
