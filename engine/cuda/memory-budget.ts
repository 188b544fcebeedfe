/**
 * What fits into the memory of a device beside the weights: pages of KV memory, what a step takes, rows of logits that score
 * prompts, pages that are widened. Arithmetic only. Called by cuda-engine.ts.
 */
import { MAX_MOVED_PAGES, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import { PageRows } from '../page-rows.ts';
import { CudaOps } from './cuda-ops.ts';
import { DevicePageRows } from './device-page-rows.ts';
import { headPad, KvMemory, type KvLayout } from './kv-memory.ts';
import { RowHeads } from './row-heads.ts';

export interface MemoryUse {
  readonly model: ModelSpec;
  readonly kv: KvLayout;
  /** Logits from row to row. */
  readonly vocabStride: number;
  readonly multiprocessors: number;
  /** Tokens of a step that memory is set aside for. */
  readonly stepTokens: number;
  /** Tokens of a text that one run is to read in 16 bits. */
  readonly longestText: number;
  /** Bytes that are left for others. */
  readonly spareBytes: number;
}

/** Free memory that is left for what the driver takes by itself. */
const DRIVER_BYTES = 768 << 20;
/** Lists, tables, what linear layers need. */
const TABLE_BYTES = 256 << 20;
/** Rows of logits of a run that score prompts: as many as fit here, at least what one chunk may ask for, at most what a run has. */
const SCORED_BYTES = 256 << 20;
const [LEAST_SCORED_ROWS, MOST_SCORED_ROWS] = [128, 8192];

export class MemoryBudget {
  readonly #use: MemoryUse;

  constructor(use: MemoryUse) {
    this.#use = use;
  }

  /** Rows of logits that one run may have to score prompts. */
  get scoredRows(): number {
    return Math.max(LEAST_SCORED_ROWS, Math.min(MOST_SCORED_ROWS, Math.floor(SCORED_BYTES / (4 * this.#use.vocabStride))));
  }

  /** Pages that one run may read in 16 bits where memory has more ids: those of a text of full length, and turned copies. */
  get widePages(): number {
    return Math.ceil(this.#use.longestText / PAGE_TOKENS) + MAX_MOVED_PAGES;
  }

  /** Pages for whose rows `free` bytes have room, beside all else; below 1 where there is none. */
  pagesIn(free: number): number {
    const left = free - this.reserved;
    const wide = KvMemory.widePageBytes(this.#use.model, this.#use.kv);
    // As many pages in 16 bits as a text of full length has, or as there are ids.
    const [ofText, ofIds] = [(left - this.widePages * wide) / this.pageBytes, (left - MAX_MOVED_PAGES * wide) / (this.pageBytes + PageRows.idsFor(1) * wide)];
    return Math.floor(Math.max(ofText, ofIds));
  }

  /** Bytes of a page, with what its ids take in the map to its rows. */
  get pageBytes(): number {
    const { model, kv } = this.#use;
    return KvMemory.pageBytes(model, kv.format) + DevicePageRows.bytes({ ids: PageRows.idsFor(1), heads: model.layers * model.kvHeads });
  }

  /** Bytes that are no KV memory of the pool. */
  get reserved(): number {
    return DRIVER_BYTES + this.#use.spareBytes + MAX_MOVED_PAGES * this.pageBytes + this.#runBytes;
  }

  /** What the buffers of a run take: activations, parts of attention, scores, rows of logits and their heads. */
  get #runBytes(): number {
    const { model, vocabStride, multiprocessors, stepTokens } = this.#use;
    const partials = 4 * multiprocessors * model.kvHeads * 64 * (headPad(model.headDim) + 2) * 4;
    const logits = this.scoredRows * (4 * vocabStride + RowHeads.bytesPerRow(model.vocab));
    return CudaOps.activationBytes(model, stepTokens) + partials + logits + TABLE_BYTES;
  }
}
