/**
 * The bytes behind page ids on the device: keys, values and page statistics of every layer, laid out as
 * kernels/CONTRACT.md says. Knows nothing of sequences or lists. Owned by cuda-engine.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';

type Shape = Pick<ModelSpec, 'layers' | 'kvHeads' | 'headDim'>;

/** Channels are stored in rows of 64: 128 bytes, what one row of a swizzle holds. */
const CHANNEL_UNIT = 64;
const ELEMENT_BYTES = 2;

export class KvMemory {
  /** Elements of keys (and of values) from one layer to the next. */
  readonly layerStride: number;
  readonly #keys: DeviceBuffer;
  readonly #values: DeviceBuffer;
  readonly #statistics: DeviceBuffer;
  readonly #statisticsStride: number;
  readonly #shape: Shape;

  /** `pages`: of the pool, and those behind it that hold turned copies. */
  constructor(shape: Shape, memory: DeviceMemory, pages: number) {
    this.#shape = shape;
    this.layerStride = pages * pageElements(shape);
    this.#statisticsStride = pages * statisticsElements(shape);
    this.#keys = memory.allocate(this.layerStride * shape.layers * ELEMENT_BYTES, 'the keys of KV memory');
    this.#values = memory.allocate(this.layerStride * shape.layers * ELEMENT_BYTES, 'the values of KV memory');
    this.#statistics = memory.allocate(this.#statisticsStride * shape.layers * ELEMENT_BYTES, 'the page statistics of KV memory');
  }

  /** Bytes of one page in all layers, statistics included. */
  static pageBytes(shape: Shape): number {
    return shape.layers * (2 * pageElements(shape) + statisticsElements(shape)) * ELEMENT_BYTES;
  }

  keys(layer: number): bigint {
    return this.#keys.address + BigInt(layer * this.layerStride * ELEMENT_BYTES);
  }

  values(layer: number): bigint {
    return this.#values.address + BigInt(layer * this.layerStride * ELEMENT_BYTES);
  }

  statistics(layer: number): bigint {
    return this.#statistics.address + BigInt(layer * this.#statisticsStride * ELEMENT_BYTES);
  }

  /** Fills pages with NaN, as recycled memory might hold. For tests. */
  poison(memory: DeviceMemory, pages: Iterable<number>): void {
    const [page, statistics] = [pageElements(this.#shape) * ELEMENT_BYTES, statisticsElements(this.#shape) * ELEMENT_BYTES];
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

function pageElements({ kvHeads, headDim }: Shape): number {
  return kvHeads * PAGE_TOKENS * headPad(headDim);
}

function statisticsElements({ kvHeads, headDim }: Shape): number {
  return kvHeads * (PAGE_TOKENS / LOGICAL_PAGE_TOKENS) * 2 * headDim;
}
