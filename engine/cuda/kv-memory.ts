/**
 * The bytes behind page ids on the device: keys, values and page statistics of every layer, laid out as
 * kernels/CONTRACT.md says. Knows nothing of sequences or lists. Owned by cuda-engine.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';

type Shape = Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>;

/** How keys and values are stored: as activations are, or in 8 bits with a scale for each token. */
export type KvFormat = 'element' | 'int8' | 'fp8';

export interface KvLayout {
  readonly format: KvFormat;
  /** Prefill reads pages of 16 bits: pages of 8 bits are widened for it, layer by layer, in an array of one layer. */
  readonly widens: boolean;
}

/** Channels are stored in rows of 64: 128 bytes, what one row of a swizzle holds. */
const CHANNEL_UNIT = 64;
const ELEMENT_BYTES = 2;
/** Of a token of an 8-bit page. */
const SCALE_BYTES = 4;

export class KvMemory {
  /** From one layer of keys (or of values) to the next: elements, bytes where pages are of 8 bits. */
  readonly layerStride: number;
  readonly format: KvFormat;
  /** One layer of keys and of values in 16 bits; null where nothing is widened. */
  readonly wide: { readonly keys: bigint; readonly values: bigint } | null;
  readonly #layerBytes: number;
  readonly #pageBytes: number;
  readonly #keys: DeviceBuffer;
  readonly #values: DeviceBuffer;
  readonly #statistics: DeviceBuffer;
  readonly #statisticsStride: number;
  readonly #shape: Shape;

  /** `pages`: of the pool, and those behind it that hold turned copies. */
  constructor(shape: Shape, memory: DeviceMemory, pages: number, layout: KvLayout = { format: 'element', widens: false }) {
    this.#shape = shape;
    this.format = layout.format;
    this.#pageBytes = keyBytes(shape, layout.format);
    this.#layerBytes = pages * this.#pageBytes;
    this.layerStride = layout.format === 'element' ? this.#layerBytes / ELEMENT_BYTES : this.#layerBytes;
    this.wide = isWidened(layout) ? widePages(shape, memory, pages) : null;
    this.#statisticsStride = pages * statisticsElements(shape);
    this.#keys = memory.allocate(this.#layerBytes * shape.layers, 'the keys of KV memory');
    this.#values = memory.allocate(this.#layerBytes * shape.layers, 'the values of KV memory');
    this.#statistics = memory.allocate(this.#statisticsStride * shape.layers * ELEMENT_BYTES, 'the page statistics of KV memory');
  }

  /** Bytes of one page in all layers, statistics and what it is widened to included. */
  static pageBytes(shape: Shape, layout: KvLayout = { format: 'element', widens: false }): number {
    const wide = isWidened(layout) ? 2 * keyBytes(shape, 'element') : 0;
    return shape.layers * (2 * keyBytes(shape, layout.format) + statisticsElements(shape) * ELEMENT_BYTES) + wide;
  }

  keys(layer: number): bigint {
    return this.#keys.address + BigInt(layer * this.#layerBytes);
  }

  values(layer: number): bigint {
    return this.#values.address + BigInt(layer * this.#layerBytes);
  }

  statistics(layer: number): bigint {
    return this.#statistics.address + BigInt(layer * this.#statisticsStride * ELEMENT_BYTES);
  }

  /** Fills pages with NaN, as recycled memory might hold. For tests. */
  poison(memory: DeviceMemory, pages: Iterable<number>): void {
    const [page, statistics] = [this.#pageBytes, statisticsElements(this.#shape) * ELEMENT_BYTES];
    for (const id of pages) {
      for (let layer = 0; layer < this.#shape.layers; layer++) {
        for (const base of [this.keys(layer), this.values(layer)]) memory.poison({ address: base + BigInt(id * page), bytes: page });
        memory.poison({ address: this.statistics(layer) + BigInt(id * statistics), bytes: statistics });
      }
    }
  }

  /** All of it: benchmarks fill it with numbers. */
  buffers(): readonly DeviceBuffer[] {
    return [this.#keys, this.#values, this.#statistics];
  }
}

export function headPad(headDim: number): number {
  return Math.ceil(headDim / CHANNEL_UNIT) * CHANNEL_UNIT;
}

/** Bytes of the keys (or of the values) of one page of a layer. */
function keyBytes({ kvHeads, headDim }: Shape, format: KvFormat): number {
  const ofToken = format === 'element' ? headPad(headDim) * ELEMENT_BYTES : headPad(headDim) + SCALE_BYTES;
  return kvHeads * PAGE_TOKENS * ofToken;
}

function isWidened({ format, widens }: KvLayout): boolean {
  return widens && format !== 'element';
}

function widePages(shape: Shape, memory: DeviceMemory, pages: number): { keys: bigint; values: bigint } {
  const bytes = pages * keyBytes(shape, 'element');
  const [keys, values] = ['keys', 'values'].map((what) => memory.allocate(bytes, `the ${what} of a layer in 16 bits`).address) as [bigint, bigint];
  return { keys, values };
}

function statisticsElements({ kvHeads, headDim }: Shape): number {
  return kvHeads * (PAGE_TOKENS / LOGICAL_PAGE_TOKENS) * 2 * headDim;
}
