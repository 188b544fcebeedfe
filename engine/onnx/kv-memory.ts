/**
 * The bytes behind page ids on the CPU: keys, values and page statistics of every layer in typed arrays that
 * the session reads without a copy. A row is one page of one KV head: row = page * kvHeads + head. Knows
 * nothing of sequences or lists. Owned by onnx-engine.ts.
 */
import { Tensor } from 'onnxruntime-node';
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { layerNames, LOGICAL_PAGES, STATISTICS_OFFSET, type OnnxPrecision } from './graph-interface.ts';

type Stored = Int8Array | Float32Array;
type Statistics = Uint8Array | Float32Array;

interface LayerMemory {
  /** [rows, 64, headDim] */
  readonly keys: Stored;
  /** [rows, 64, headDim] */
  readonly values: Stored;
  /** [rows, LOGICAL_PAGES, max | min, headDim] */
  readonly statistics: Statistics;
  /** The same bytes as 32-bit words: rows are copied four channels at a time. */
  readonly keyWords: Int32Array;
  readonly valueWords: Int32Array;
}

export interface KvGeometry {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly precision: OnnxPrecision;
  readonly pages: number;
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
  readonly #headDim: number;
  readonly #offset: number;
  readonly #layers: readonly LayerMemory[];
  /** Inputs of every run. */
  readonly tensors: Readonly<Record<string, Tensor>>;

  constructor(geometry: KvGeometry) {
    this.kvHeads = geometry.kvHeads;
    this.#headDim = geometry.headDim;
    this.#offset = geometry.precision === 'int8' ? STATISTICS_OFFSET : 0;
    this.#layers = Array.from({ length: geometry.layers }, () => layerMemory(geometry));
    this.tensors = inputs(this.#layers, geometry);
  }

  /** Writes the rows to positions start.. of a sequence's pages and merges them into the statistics. */
  write(layer: number, rows: NewRows, { start, pageTable }: { start: number; pageTable: Int32Array }): void {
    const memory = this.#layers[layer]!;
    const newKeyWords = words(rows.keys);
    const newValueWords = words(rows.values);
    const wordsPerRow = (this.#headDim * rows.keys.BYTES_PER_ELEMENT) / 4;
    for (let i = 0; i < rows.count; i++) {
      const position = start + i;
      const page = pageTable[Math.floor(position / PAGE_TOKENS)]!;
      const slot = position % PAGE_TOKENS;
      for (let head = 0; head < this.kvHeads; head++) {
        const row = page * this.kvHeads + head;
        const from = (rows.first + i) * this.kvHeads + head;
        const target = (row * PAGE_TOKENS + slot) * wordsPerRow;
        copyWords(newKeyWords, from * wordsPerRow, memory.keyWords, target, wordsPerRow);
        copyWords(newValueWords, from * wordsPerRow, memory.valueWords, target, wordsPerRow);
        this.#merge(memory.statistics, rows.keys, { row, slot, from });
      }
    }
  }

  /** The keys of one page, as they are stored: a view. [64, headDim] */
  keysOf(layer: number, kvHead: number, page: number): Stored {
    const size = PAGE_TOKENS * this.#headDim;
    const row = page * this.kvHeads + kvHead;
    return this.#layers[layer]!.keys.subarray(row * size, (row + 1) * size);
  }

  /** Forgets the keys of a page from `slot` on: the statistics are those of the keys before it. */
  truncate(page: number, slot: number): void {
    const first = slot - (slot % LOGICAL_PAGE_TOKENS);
    for (const { keys, statistics } of this.#layers) {
      for (let head = 0; head < this.kvHeads; head++) {
        const row = page * this.kvHeads + head;
        for (let kept = first; kept < slot; kept++) this.#merge(statistics, keys, { row, slot: kept, from: row * PAGE_TOKENS + kept });
      }
    }
  }

  /**
   * Copies a page with its keys turned as if they stood `delta` tokens later. frequencies: radians per
   * position of each channel pair. Int8 keys turn in their scaled form: both channels of a pair have one scale.
   */
  copyRotated({ from, to, delta, frequencies }: { from: number; to: number; delta: number; frequencies: Float64Array }): void {
    const cos = frequencies.map((frequency) => Math.cos(frequency * delta));
    const sin = frequencies.map((frequency) => Math.sin(frequency * delta));
    const size = this.kvHeads * PAGE_TOKENS * this.#headDim;
    for (const { keys, values } of this.#layers) {
      values.copyWithin(to * size, from * size, (from + 1) * size);
      for (let token = 0; token < this.kvHeads * PAGE_TOKENS; token++) {
        this.#rotate(keys, from * size + token * this.#headDim, to * size + token * this.#headDim, cos, sin);
      }
    }
  }

  /** Fills a page with values that would show in any result that read it. For tests of recycling. */
  poison(page: number, value: number): void {
    for (const { keys, values, statistics } of this.#layers) {
      const size = this.kvHeads * PAGE_TOKENS * this.#headDim;
      keys.fill(value, page * size, (page + 1) * size);
      values.fill(value, page * size, (page + 1) * size);
      const statisticsSize = this.kvHeads * LOGICAL_PAGES * 2 * this.#headDim;
      statistics.fill(value, page * statisticsSize, (page + 1) * statisticsSize);
    }
  }

  /** The first key of a logical page is stored as both bounds, later ones are merged: recycled bytes never count. */
  #merge(statistics: Statistics, keys: Stored, { row, slot, from }: { row: number; slot: number; from: number }): void {
    const dim = this.#headDim;
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

  #rotate(keys: Stored, from: number, to: number, cos: Float64Array, sin: Float64Array): void {
    const half = this.#headDim / 2;
    for (let pair = 0; pair < half; pair++) {
      const a = keys[from + pair]!;
      const b = keys[from + pair + half]!;
      keys[to + pair] = this.#rounded(keys, a * cos[pair]! - b * sin[pair]!);
      keys[to + pair + half] = this.#rounded(keys, b * cos[pair]! + a * sin[pair]!);
    }
  }

  #rounded(keys: Stored, value: number): number {
    return keys instanceof Int8Array ? Math.max(-128, Math.min(127, Math.round(value))) : value;
  }
}

function layerMemory({ kvHeads, headDim, pages, precision }: KvGeometry): LayerMemory {
  const rows = pages * kvHeads;
  const array = (length: number): Stored => (precision === 'int8' ? new Int8Array(length) : new Float32Array(length));
  const keys = array(rows * PAGE_TOKENS * headDim);
  const values = array(rows * PAGE_TOKENS * headDim);
  const numStatistics = rows * LOGICAL_PAGES * 2 * headDim;
  const statistics = precision === 'int8' ? new Uint8Array(numStatistics) : new Float32Array(numStatistics);
  return { keys, values, statistics, keyWords: words(keys), valueWords: words(values) };
}

function inputs(layers: readonly LayerMemory[], { kvHeads, headDim, pages, precision }: KvGeometry): Record<string, Tensor> {
  const type = precision === 'int8' ? 'int8' : 'float32';
  const rows = pages * kvHeads;
  const tensors: Record<string, Tensor> = {};
  layers.forEach(({ keys, values, statistics }, layer) => {
    const names = layerNames(layer);
    tensors[names.keys] = new Tensor(type, keys, [rows, PAGE_TOKENS * headDim]);
    tensors[names.values] = new Tensor(type, values, [rows, PAGE_TOKENS * headDim]);
    tensors[names.statistics] = new Tensor(precision === 'int8' ? 'uint8' : 'float32', statistics, [rows, LOGICAL_PAGES * 2 * headDim]);
  });
  return tensors;
}

function words(data: Stored): Int32Array {
  return new Int32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}

/** A loop: for rows this short it is four times as fast as subarray().set(). */
function copyWords(from: Int32Array, fromIndex: number, to: Int32Array, toIndex: number, count: number): void {
  for (let i = 0; i < count; i++) to[toIndex + i] = from[fromIndex + i]!;
}
