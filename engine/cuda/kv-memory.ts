/**
 * The bytes behind page ids on the device: keys, values and page statistics in rows, one for a page of a KV head of a
 * layer, laid out as kernels/CONTRACT.md says. Knows nothing of sequences or lists. Owned by cuda-engine.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';
import { DevicePageRows } from './device-page-rows.ts';

type Shape = Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>;

/** How keys and values are stored: as activations are, or in 8 bits with a scale for each token. */
export type KvFormat = 'element' | 'int8' | 'fp8';

export interface KvLayout {
  readonly format: KvFormat;
  /** Prefill reads pages of 16 bits: pages of 8 bits are widened for it, layer by layer, in rows of their own. */
  readonly widens: boolean;
}

export interface KvSize {
  /** Whole pages that there are rows for. */
  readonly pages: number;
  readonly ids: number;
  /** Pages that one run reads by kernels that want 16 bits, at most. */
  readonly widePages: number;
}

/** One layer of what a run reads, in 16 bits. */
export interface WidePages {
  readonly keys: bigint;
  readonly values: bigint;
  /** Which row a page has there, for each head. [ids, kvHeads] */
  readonly rows: bigint;
  readonly pages: number;
}

/** Channels are stored in rows of 64: 128 bytes, what one row of a swizzle holds. */
const CHANNEL_UNIT = 64;
const ELEMENT_BYTES = 2;
/** Of a token of an 8-bit page. */
const SCALE_BYTES = 4;

export class KvMemory {
  readonly format: KvFormat;
  readonly pageRows: DevicePageRows;
  /** null where nothing is widened. */
  readonly wide: WidePages | null;
  readonly #shape: Shape;
  readonly #memory: DeviceMemory;
  readonly #keys: DeviceBuffer;
  readonly #values: DeviceBuffer;
  readonly #statistics: DeviceBuffer;

  constructor(shape: Shape, memory: DeviceMemory, size: KvSize, layout: KvLayout = { format: 'element', widens: false }) {
    this.#shape = shape;
    this.#memory = memory;
    this.format = layout.format;
    const heads = shape.layers * shape.kvHeads;
    // The first row is nobody's.
    const rows = 1 + size.pages * heads;
    this.pageRows = new DevicePageRows(memory, { ...size, heads });
    this.wide = isWidened(layout) ? widePages(shape, memory, size) : null;
    this.#keys = memory.allocate(rows * rowBytes(shape, layout.format), 'the keys of KV memory');
    this.#values = memory.allocate(rows * rowBytes(shape, layout.format), 'the values of KV memory');
    this.#statistics = memory.allocate(rows * statisticsBytes(shape), 'the page statistics of KV memory');
    this.#poisonRow(0);
  }

  /** Bytes of a whole page in all layers, statistics included. */
  static pageBytes(shape: Shape, format: KvFormat): number {
    return shape.layers * shape.kvHeads * (2 * rowBytes(shape, format) + statisticsBytes(shape));
  }

  /** Bytes of a page that is widened; 0 where none is. */
  static widePageBytes(shape: Shape, layout: KvLayout): number {
    return isWidened(layout) ? 2 * shape.kvHeads * rowBytes(shape, 'element') : 0;
  }

  get keys(): bigint {
    return this.#keys.address;
  }

  get values(): bigint {
    return this.#values.address;
  }

  get statistics(): bigint {
    return this.#statistics.address;
  }

  /** Fills the rows that these heads have in a page with NaN, as recycled memory might hold. For tests. */
  poison(page: number, heads: Iterable<number>): void {
    for (const head of heads) this.#poisonRow(this.pageRows.of(page, head));
  }

  /** For benchmarks: these pages are whole and full of numbers. */
  occupy(pages: Iterable<number>, numbers: ArrayBufferView): void {
    for (const page of pages) this.pageRows.place(page);
    for (const buffer of [this.#keys, this.#values, this.#statistics]) this.#memory.repeat(buffer, numbers);
    this.#poisonRow(0);
  }

  #poisonRow(row: number): void {
    const [bytes, ofStatistics] = [rowBytes(this.#shape, this.format), statisticsBytes(this.#shape)];
    for (const address of [this.keys, this.values]) this.#memory.poison({ address: address + BigInt(row * bytes), bytes });
    this.#memory.poison({ address: this.statistics + BigInt(row * ofStatistics), bytes: ofStatistics });
  }
}

export function headPad(headDim: number): number {
  return Math.ceil(headDim / CHANNEL_UNIT) * CHANNEL_UNIT;
}

/** Bytes of the keys (or of the values) of a page of one KV head of a layer. */
function rowBytes({ headDim }: Shape, format: KvFormat): number {
  return PAGE_TOKENS * (format === 'element' ? headPad(headDim) * ELEMENT_BYTES : headPad(headDim) + SCALE_BYTES);
}

function statisticsBytes({ headDim }: Shape): number {
  return (PAGE_TOKENS / LOGICAL_PAGE_TOKENS) * 2 * headDim * ELEMENT_BYTES;
}

function isWidened({ format, widens }: KvLayout): boolean {
  return widens && format !== 'element';
}

function widePages(shape: Shape, memory: DeviceMemory, { ids, widePages: pages }: KvSize): WidePages {
  const bytes = pages * shape.kvHeads * rowBytes(shape, 'element');
  const allocate = (of: number, what: string): bigint => memory.allocate(of, `${what} of a layer in 16 bits`).address;
  return { keys: allocate(bytes, 'the keys'), values: allocate(bytes, 'the values'), rows: allocate(4 * ids * shape.kvHeads, 'the rows'), pages };
}
