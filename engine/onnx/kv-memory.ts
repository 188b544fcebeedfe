/**
 * The bytes behind page ids on the CPU: keys, values and page statistics in typed arrays that the session reads without
 * a copy. A row is one page of one KV head of one layer; which, page-rows.ts knows. Knows nothing of sequences or lists.
 * Owned by onnx-engine.ts.
 */
import { constants } from 'node:buffer';
import { Tensor } from 'onnxruntime-node';
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { PageRows } from '../page-rows.ts';
import { LOGICAL_PAGES, MEMORY_NAMES, STATISTICS_OFFSET, type OnnxPrecision } from './graph-interface.ts';

type Stored = Int8Array | Float32Array;
type Statistics = Uint8Array | Float32Array;

export interface KvGeometry {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly precision: OnnxPrecision;
  /** Whole pages that there are rows for. */
  readonly pages: number;
  readonly ids: number;
}

/** New rows of one layer as the graph returns them. [tokens, kvHeads, headDim] */
export interface NewRows {
  readonly keys: Stored;
  readonly values: Stored;
  /** Which of the tokens to write: `count` of them from `first` on. */
  readonly first: number;
  readonly count: number;
}

export class KvMemory {
  readonly kvHeads: number;
  readonly #heads: number;
  readonly #headDim: number;
  readonly #offset: number;
  readonly #rows: PageRows;
  /** [rows, 64, headDim] */
  readonly #keys: Stored;
  /** [rows, 64, headDim] */
  readonly #values: Stored;
  /** [rows, LOGICAL_PAGES, max | min, headDim] */
  readonly #statistics: Statistics;
  /** The same bytes as 32-bit words: rows are copied four channels at a time. */
  readonly #keyWords: Int32Array;
  readonly #valueWords: Int32Array;
  /** Inputs of every run. */
  readonly tensors: Readonly<Record<string, Tensor>>;

  constructor({ layers, kvHeads, headDim, precision, pages, ids }: KvGeometry) {
    this.kvHeads = kvHeads;
    this.#heads = layers * kvHeads;
    this.#headDim = headDim;
    this.#offset = precision === 'int8' ? STATISTICS_OFFSET : 0;
    this.#rows = new PageRows({ pages, ids, heads: this.#heads });
    const rows = pages * this.#heads;
    const array = (length: number): Stored => (precision === 'int8' ? new Int8Array(length) : new Float32Array(length));
    this.#keys = array(rows * PAGE_TOKENS * headDim);
    this.#values = array(rows * PAGE_TOKENS * headDim);
    const numStatistics = rows * LOGICAL_PAGES * 2 * headDim;
    this.#statistics = precision === 'int8' ? new Uint8Array(numStatistics) : new Float32Array(numStatistics);
    this.#keyWords = words(this.#keys);
    this.#valueWords = words(this.#values);
    const type = precision === 'int8' ? 'int8' : 'float32';
    this.tensors = {
      [MEMORY_NAMES.keys]: new Tensor(type, this.#keys, [rows, PAGE_TOKENS * headDim]),
      [MEMORY_NAMES.values]: new Tensor(type, this.#values, [rows, PAGE_TOKENS * headDim]),
      [MEMORY_NAMES.statistics]: new Tensor(precision === 'int8' ? 'uint8' : 'float32', this.#statistics, [rows, LOGICAL_PAGES * 2 * headDim]),
    };
  }

  /** Pages that one array can hold the keys of. */
  static mostPages({ layers, kvHeads, headDim }: Pick<KvGeometry, 'layers' | 'kvHeads' | 'headDim'>): number {
    return Math.floor(constants.MAX_LENGTH / (layers * kvHeads * PAGE_TOKENS * headDim));
  }

  /** Throws where the head has no row in the page. */
  rowOf(layer: number, kvHead: number, page: number): number {
    return this.#rows.of(page, layer * this.kvHeads + kvHead);
  }

  /** The rows that a head has in these pages, to target[at..]. */
  fillRows(target: Int32Array, at: number, { layer, kvHead, pages }: { layer: number; kvHead: number; pages: Int32Array }): void {
    this.#rows.fill(target, at, { pages, head: layer * this.kvHeads + kvHead });
  }

  /** The rows of these heads (layer * kvHeads + head) of a page are free, or all of it (null). */
  release(page: number, heads: Int32Array | null): void {
    this.#rows.release(page, heads);
  }

  /** Writes the rows to positions start.. of a sequence's pages and merges them into the statistics. */
  write(layer: number, rows: NewRows, { start, pageTable }: { start: number; pageTable: Int32Array }): void {
    const newKeyWords = words(rows.keys);
    const newValueWords = words(rows.values);
    const wordsPerRow = (this.#headDim * rows.keys.BYTES_PER_ELEMENT) / 4;
    for (let i = 0; i < rows.count; i++) {
      const position = start + i;
      const page = pageTable[Math.floor(position / PAGE_TOKENS)]!;
      const slot = position % PAGE_TOKENS;
      if (i === 0 || slot === 0) this.#rows.place(page);
      for (let head = 0; head < this.kvHeads; head++) {
        const row = this.rowOf(layer, head, page);
        const from = (rows.first + i) * this.kvHeads + head;
        const target = (row * PAGE_TOKENS + slot) * wordsPerRow;
        copyWords(newKeyWords, from * wordsPerRow, this.#keyWords, target, wordsPerRow);
        copyWords(newValueWords, from * wordsPerRow, this.#valueWords, target, wordsPerRow);
        this.#merge(rows.keys, { row, slot, from });
      }
    }
  }

  /** The keys of one head in one page, as they are stored: a view. [64, headDim] */
  keysOf(layer: number, kvHead: number, page: number): Stored {
    const size = PAGE_TOKENS * this.#headDim;
    const row = this.rowOf(layer, kvHead, page);
    return this.#keys.subarray(row * size, (row + 1) * size);
  }

  /** Forgets the keys of a page from `slot` on: the statistics are those of the keys before it. */
  truncate(page: number, slot: number): void {
    const first = slot - (slot % LOGICAL_PAGE_TOKENS);
    for (let head = 0; head < this.#heads; head++) {
      const row = this.#rows.of(page, head);
      for (let kept = first; kept < slot; kept++) this.#merge(this.#keys, { row, slot: kept, from: row * PAGE_TOKENS + kept });
    }
  }

  /**
   * Copies a page with its keys turned as if they stood `delta` tokens later. frequencies: radians per
   * position of each channel pair. Int8 keys turn in their scaled form: both channels of a pair have one scale.
   */
  copyRotated({ from, to, delta, frequencies }: { from: number; to: number; delta: number; frequencies: Float64Array }): void {
    const cos = frequencies.map((frequency) => Math.cos(frequency * delta));
    const sin = frequencies.map((frequency) => Math.sin(frequency * delta));
    const size = PAGE_TOKENS * this.#headDim;
    this.#rows.place(to);
    for (let head = 0; head < this.#heads; head++) {
      const source = this.#rows.of(from, head) * size;
      const target = this.#rows.of(to, head) * size;
      this.#values.copyWithin(target, source, source + size);
      for (let at = 0; at < size; at += this.#headDim) this.#rotate(source + at, target + at, cos, sin);
    }
  }

  /** Fills a page with values that would show in any result that read it. For tests of recycling. */
  poison(page: number, value: number): void {
    this.#rows.place(page);
    const fill = (memory: Stored | Statistics, row: number, size: number): void => { memory.fill(value, row * size, (row + 1) * size); };
    for (let head = 0; head < this.#heads; head++) {
      const row = this.#rows.of(page, head);
      for (const memory of [this.#keys, this.#values]) fill(memory, row, PAGE_TOKENS * this.#headDim);
      fill(this.#statistics, row, LOGICAL_PAGES * 2 * this.#headDim);
    }
  }

  /** The first key of a logical page is stored as both bounds, later ones are merged: recycled bytes never count. */
  #merge(keys: Stored, { row, slot, from }: { row: number; slot: number; from: number }): void {
    const dim = this.#headDim;
    const statistics = this.#statistics;
    const source = from * dim;
    const max = (row * LOGICAL_PAGES + Math.floor(slot / LOGICAL_PAGE_TOKENS)) * 2 * dim;
    const min = max + dim;
    if (slot % LOGICAL_PAGE_TOKENS === 0) {
      for (let c = 0; c < dim; c++) statistics[max + c] = statistics[min + c] = keys[source + c]! + this.#offset;
      return;
    }
    for (let c = 0; c < dim; c++) {
      const key = keys[source + c]! + this.#offset;
      if (key > statistics[max + c]!) statistics[max + c] = key;
      if (key < statistics[min + c]!) statistics[min + c] = key;
    }
  }

  #rotate(from: number, to: number, cos: Float64Array, sin: Float64Array): void {
    const keys = this.#keys;
    const half = this.#headDim / 2;
    for (let pair = 0; pair < half; pair++) {
      const a = keys[from + pair]!;
      const b = keys[from + pair + half]!;
      keys[to + pair] = this.#rounded(a * cos[pair]! - b * sin[pair]!);
      keys[to + pair + half] = this.#rounded(b * cos[pair]! + a * sin[pair]!);
    }
  }

  #rounded(value: number): number {
    return this.#keys instanceof Int8Array ? Math.max(-128, Math.min(127, Math.round(value))) : value;
  }
}

function words(data: Stored): Int32Array {
  return new Int32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}

/** A loop: for rows this short it is four times as fast as subarray().set(). */
function copyWords(from: Int32Array, fromIndex: number, to: Int32Array, toIndex: number, count: number): void {
  for (let i = 0; i < count; i++) to[toIndex + i] = from[fromIndex + i]!;
}
