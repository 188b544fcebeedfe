/**
 * The engine that says what is right: float64, chunk after chunk, no batching. Tests hold the fast engines
 * to it; it also serves tiny models. Knows no page-list technique. Built by engine/create.ts.
 */
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { checkChunk } from '../check-chunk.ts';
import type { Chunk, Engine, EngineSpec, StepResult } from '../engine.ts';
import { decode } from '../model/decoder.ts';
import { decoderTensors } from '../model/decoder-tensors.ts';
import { Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { Weights } from '../model/weights.ts';
import { ChunkAttention, type AttentionState } from './attention.ts';
import { PageMemory } from './page-memory.ts';
import { ReferenceOps, type TensorTable } from './reference-ops.ts';
import { SelectionMemory } from './selection-memory.ts';

export interface ReferenceEngineOptions {
  readonly spec: ModelSpec;
  readonly weights: Weights;
  readonly pages: number;
  /** See HeadGeometry.headOrder. */
  readonly headOrder: Int32Array | null;
}

export class ReferenceEngine implements Engine {
  readonly spec: EngineSpec;
  readonly pages: number;
  readonly pageIds: number;
  readonly #state: AttentionState;
  readonly #tensors: TensorTable;

  /** Reads all weights; the caller may close them afterwards. */
  constructor({ spec, weights, pages, headOrder }: ReferenceEngineOptions) {
    this.spec = describe(spec, headOrder);
    this.pages = pages;
    this.#tensors = loadTensors(spec, weights);
    this.#state = {
      spec, rope: new Rope(spec.rope, spec.headDim), memory: new PageMemory(spec, pages), selection: new SelectionMemory(),
    };
    this.pageIds = this.#state.memory.pageIds;
  }

  run(step: readonly Chunk[]): Promise<StepResult> {
    return Promise.resolve(step).then((chunks) => this.#runStep(chunks));
  }

  truncate({ sequenceId, pageTable }: Pick<Chunk, 'sequenceId' | 'pageTable'>, length: number): void {
    this.#state.selection.truncate(sequenceId, length);
    const slot = length % PAGE_TOKENS;
    if (slot > 0) this.#state.memory.truncate(pageTable[Math.floor(length / PAGE_TOKENS)]!, slot);
  }

  release(page: number, heads: Int32Array | null): void {
    this.#state.memory.release(page, heads);
  }

  forget(sequenceId: number): void {
    this.#state.selection.forget(sequenceId);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Overwrites pages with NaN, as recycled memory might be. For tests. */
  poison(pages: Iterable<number>): void {
    this.#state.memory.poison(pages);
  }

  /** Checks the whole step before it writes any page. */
  #runStep(step: readonly Chunk[]): StepResult {
    for (const chunk of step) checkChunk(chunk, { ...this.spec, pageIds: this.pageIds });
    const results = step.map((chunk) => this.#runChunk(chunk));
    return {
      logits: results.map(({ logits }) => logits),
      pagesRead: sum(results.map(({ pagesRead }) => pagesRead)),
      pagesScored: sum(results.map(({ pagesScored }) => pagesScored)),
    };
  }

  #runChunk(chunk: Chunk): { logits: Float32Array | null; pagesRead: number; pagesScored: number } {
    const attention = new ChunkAttention(this.#state, chunk);
    const { rows, data } = decode(new ReferenceOps(this.#state, this.#tensors, chunk, attention), this.#state.spec);
    const logits = rows === 0 ? null : Float32Array.from(data);
    return { logits, pagesRead: attention.pagesRead, pagesScored: attention.pagesScored };
  }
}

function describe(spec: ModelSpec, headOrder: Int32Array | null): EngineSpec {
  const { layers, kvHeads, vocab, contextLength, slidingWindow } = spec;
  return {
    engine: 'reference', precision: 'float64', layers, kvHeads, vocab, contextLength, slidingWindow, headOrder,
    keysDependOnPromptLength: spec.rope.type === 'dynamic', kvBytesPerToken: PageMemory.bytesPerToken(spec),
  };
}

function loadTensors(spec: ModelSpec, weights: Weights): TensorTable {
  const names = decoderTensors(spec).map(({ name }) => name).filter((name) => weights.has(name));
  return new Map(names.map((name) => [name, weights.float32(name)]));
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
