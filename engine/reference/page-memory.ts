/**
 * The bytes behind page ids, in float64: keys and values of each layer, and the channel-wise minimum and
 * maximum of the keys of each logical page (LServe, arXiv 2502.14866). Knows no sequences and no lists.
 * Used by attention.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';

export const LOGICAL_PER_PAGE = PAGE_TOKENS / LOGICAL_PAGE_TOKENS;

/** Where one token of one KV head lies. */
export interface Slot {
  readonly layer: number;
  readonly head: number;
  readonly page: number;
  /** Token within the page, 0..63. */
  readonly slot: number;
}

interface LayerMemory {
  /** Rotated keys. [pages, kvHeads, 64, headDim] */
  readonly keys: Float64Array;
  /** [pages, kvHeads, 64, headDim] */
  readonly values: Float64Array;
  /** [pages, kvHeads, 4, headDim] */
  readonly minima: Float64Array;
  /** [pages, kvHeads, 4, headDim] */
  readonly maxima: Float64Array;
}

export class PageMemory {
  readonly #kvHeads: number;
  readonly #headDim: number;
  readonly #layers: readonly LayerMemory[];

  /** Starts poisoned, so that reading what nobody wrote shows in the result. */
  constructor(spec: Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>, pages: number) {
    this.#kvHeads = spec.kvHeads;
    this.#headDim = spec.headDim;
    const poisoned = (perPage: number) => new Float64Array(pages * spec.kvHeads * perPage * spec.headDim).fill(NaN);
    this.#layers = Array.from({ length: spec.layers }, () => ({
      keys: poisoned(PAGE_TOKENS), values: poisoned(PAGE_TOKENS),
      minima: poisoned(LOGICAL_PER_PAGE), maxima: poisoned(LOGICAL_PER_PAGE),
    }));
  }

  static bytesPerToken(spec: Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>): number {
    return spec.layers * spec.kvHeads * spec.headDim * 2 * (1 + 1 / LOGICAL_PAGE_TOKENS) * Float64Array.BYTES_PER_ELEMENT;
  }

  /** Stores a token and takes its key into the statistics. key, value: [headDim] */
  write(at: Slot, key: Float64Array, value: Float64Array): void {
    const layer = this.#layers[at.layer]!;
    const offset = this.#tokenOffset(at);
    layer.keys.set(key, offset);
    layer.values.set(value, offset);
    this.#updateStatistics(at, key);
  }

  /** A view. [headDim] */
  key(at: Slot): Float64Array {
    return this.#view(this.#layers[at.layer]!.keys, this.#tokenOffset(at));
  }

  /** A view. [headDim] */
  value(at: Slot): Float64Array {
    return this.#view(this.#layers[at.layer]!.values, this.#tokenOffset(at));
  }

  /** Views of the statistics of the logical page that holds the slot. [headDim] each */
  statistics(at: Slot): { minimum: Float64Array; maximum: Float64Array } {
    const { minima, maxima } = this.#layers[at.layer]!;
    const offset = this.#logicalOffset(at);
    return { minimum: this.#view(minima, offset), maximum: this.#view(maxima, offset) };
  }

  /** Forgets the keys of a page from `slot` on: the statistics are those of the keys before it. */
  truncate(page: number, slot: number): void {
    const first = slot - (slot % LOGICAL_PAGE_TOKENS);
    this.#layers.forEach((_, layer) => {
      for (let head = 0; head < this.#kvHeads; head++) {
        for (let kept = first; kept < slot; kept++) {
          const at = { layer, head, page, slot: kept };
          this.#updateStatistics(at, this.key(at));
        }
      }
    });
  }

  /** Overwrites pages with NaN: what a recycled page may hold. */
  poison(pages: Iterable<number>): void {
    for (const page of pages) {
      for (const layer of this.#layers) {
        for (const memory of [layer.keys, layer.values]) this.#fillPage(memory, page, PAGE_TOKENS);
        for (const memory of [layer.minima, layer.maxima]) this.#fillPage(memory, page, LOGICAL_PER_PAGE);
      }
    }
  }

  /** The first key of a logical page is stored, whatever the page held before; later ones are merged. */
  #updateStatistics(at: Slot, key: Float64Array): void {
    const { minimum, maximum } = this.statistics(at);
    if (at.slot % LOGICAL_PAGE_TOKENS === 0) {
      minimum.set(key);
      maximum.set(key);
      return;
    }
    for (let channel = 0; channel < this.#headDim; channel++) {
      minimum[channel] = Math.min(minimum[channel]!, key[channel]!);
      maximum[channel] = Math.max(maximum[channel]!, key[channel]!);
    }
  }

  #tokenOffset({ page, head, slot }: Slot): number {
    return ((page * this.#kvHeads + head) * PAGE_TOKENS + slot) * this.#headDim;
  }

  #logicalOffset({ page, head, slot }: Slot): number {
    return ((page * this.#kvHeads + head) * LOGICAL_PER_PAGE + Math.floor(slot / LOGICAL_PAGE_TOKENS)) * this.#headDim;
  }

  #view(memory: Float64Array, offset: number): Float64Array {
    return memory.subarray(offset, offset + this.#headDim);
  }

  #fillPage(memory: Float64Array, page: number, perPage: number): void {
    const size = this.#kvHeads * perPage * this.#headDim;
    memory.fill(NaN, page * size, (page + 1) * size);
  }
}
