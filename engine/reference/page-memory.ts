/**
 * The bytes behind page ids, in float64: keys and values of each layer, and the channel-wise minimum and
 * maximum of the keys of each logical page (LServe, arXiv 2502.14866). Knows no sequences and no lists.
 * Used by attention.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import { PageRows } from '../page-rows.ts';

export const LOGICAL_PER_PAGE = PAGE_TOKENS / LOGICAL_PAGE_TOKENS;

/** Where one token of one KV head lies. */
export interface Slot {
  readonly layer: number;
  readonly head: number;
  readonly page: number;
  /** Token within the page, 0..63. */
  readonly slot: number;
}

export class PageMemory {
  readonly pageIds: number;
  readonly #layers: number;
  readonly #kvHeads: number;
  readonly #headDim: number;
  readonly #rows: PageRows;
  /** Rotated keys. [rows, 64, headDim] */
  readonly #keys: Float64Array;
  /** [rows, 64, headDim] */
  readonly #values: Float64Array;
  /** [rows, 4, headDim] */
  readonly #minima: Float64Array;
  /** [rows, 4, headDim] */
  readonly #maxima: Float64Array;

  /** Starts poisoned, so that reading what nobody wrote shows in the result. */
  constructor(spec: Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>, pages: number) {
    this.#layers = spec.layers;
    this.#kvHeads = spec.kvHeads;
    this.#headDim = spec.headDim;
    this.pageIds = PageRows.idsFor(pages);
    const heads = spec.layers * spec.kvHeads;
    this.#rows = new PageRows({ pages, ids: this.pageIds, heads });
    const poisoned = (perRow: number) => new Float64Array(pages * heads * perRow * spec.headDim).fill(NaN);
    [this.#keys, this.#values] = [poisoned(PAGE_TOKENS), poisoned(PAGE_TOKENS)];
    [this.#minima, this.#maxima] = [poisoned(LOGICAL_PER_PAGE), poisoned(LOGICAL_PER_PAGE)];
  }

  static bytesPerToken(spec: Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>): number {
    return spec.layers * spec.kvHeads * spec.headDim * 2 * (1 + 1 / LOGICAL_PAGE_TOKENS) * Float64Array.BYTES_PER_ELEMENT;
  }

  /** Rows that may be written over: NaN, so that whoever still reads them shows. */
  release(page: number, heads: Int32Array | null): void {
    const released = heads ?? Int32Array.from({ length: this.#layers * this.#kvHeads }, (_, head) => head);
    for (const head of released) if (this.#rows.has(page, head)) this.#poisonRow(this.#rows.of(page, head));
    this.#rows.release(page, heads);
  }

  /** Stores a token and takes its key into the statistics. key, value: [headDim] */
  write(at: Slot, key: Float64Array, value: Float64Array): void {
    this.#rows.place(at.page);
    const offset = this.#tokenOffset(at);
    this.#keys.set(key, offset);
    this.#values.set(value, offset);
    this.#updateStatistics(at, key);
  }

  /** A view. [headDim] */
  key(at: Slot): Float64Array {
    return this.#view(this.#keys, this.#tokenOffset(at));
  }

  /** A view. [headDim] */
  value(at: Slot): Float64Array {
    return this.#view(this.#values, this.#tokenOffset(at));
  }

  /** Views of the statistics of the logical page that holds the slot. [headDim] each */
  statistics(at: Slot): { minimum: Float64Array; maximum: Float64Array } {
    const offset = this.#logicalOffset(at);
    return { minimum: this.#view(this.#minima, offset), maximum: this.#view(this.#maxima, offset) };
  }

  /** Forgets the keys of a page from `slot` on: the statistics are those of the keys before it. */
  truncate(page: number, slot: number): void {
    const first = slot - (slot % LOGICAL_PAGE_TOKENS);
    for (let index = 0; index < this.#layers * this.#kvHeads; index++) {
      for (let kept = first; kept < slot; kept++) {
        const at = { layer: Math.floor(index / this.#kvHeads), head: index % this.#kvHeads, page, slot: kept };
        this.#updateStatistics(at, this.key(at));
      }
    }
  }

  /** Overwrites pages with NaN: what a recycled page may hold. */
  poison(pages: Iterable<number>): void {
    for (const page of pages) {
      this.#rows.place(page);
      for (let head = 0; head < this.#layers * this.#kvHeads; head++) this.#poisonRow(this.#rows.of(page, head));
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

  #tokenOffset(at: Slot): number {
    return (this.#row(at) * PAGE_TOKENS + at.slot) * this.#headDim;
  }

  #logicalOffset(at: Slot): number {
    return (this.#row(at) * LOGICAL_PER_PAGE + Math.floor(at.slot / LOGICAL_PAGE_TOKENS)) * this.#headDim;
  }

  #row({ layer, head, page }: Slot): number {
    return this.#rows.of(page, layer * this.#kvHeads + head);
  }

  #view(memory: Float64Array, offset: number): Float64Array {
    return memory.subarray(offset, offset + this.#headDim);
  }

  #poisonRow(row: number): void {
    const fill = (memory: Float64Array, size: number): void => { memory.fill(NaN, row * size, (row + 1) * size); };
    for (const memory of [this.#keys, this.#values]) fill(memory, PAGE_TOKENS * this.#headDim);
    for (const memory of [this.#minima, this.#maxima]) fill(memory, LOGICAL_PER_PAGE * this.#headDim);
  }
}
