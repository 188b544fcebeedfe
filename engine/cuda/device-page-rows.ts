/**
 * Which row of KV memory a head has in a page, for kernels: the rows of engine/page-rows.ts and their copy on the device,
 * brought up to date before each run. There a head without a row has row 0, which holds NaN: what should not be read shows.
 * Knows numbers only. Owned by kv-memory.ts.
 */
import { PageRows, type PageRowsSize } from '../page-rows.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';

const ENTRY_BYTES = Int32Array.BYTES_PER_ELEMENT;

export class DevicePageRows {
  /** Of all layers: entries from page to page. */
  readonly heads: number;
  readonly #memory: DeviceMemory;
  readonly #rows: PageRows;
  /** Row + 1, or 0 for none. [ids, heads] */
  readonly #onDevice: DeviceBuffer;
  /** Pages whose rows are others on the device. */
  readonly #changed = new Set<number>();

  constructor(memory: DeviceMemory, size: PageRowsSize) {
    this.heads = size.heads;
    this.#memory = memory;
    this.#rows = new PageRows(size);
    this.#onDevice = memory.allocate(DevicePageRows.bytes(size), 'the rows of pages');
    memory.clear(this.#onDevice);
  }

  static bytes({ ids, heads }: Pick<PageRowsSize, 'ids' | 'heads'>): number {
    return ids * heads * ENTRY_BYTES;
  }

  /** Where the entries of a head of all layers begin: page after page, `heads` apart. */
  address(head: number): bigint {
    return this.#onDevice.address + BigInt(ENTRY_BYTES * head);
  }

  /** The row of KV memory, counted from 0, the one of nobody. */
  of(page: number, head: number): number {
    return this.#rows.of(page, head) + 1;
  }

  /** Before a page is written: every head has a row there. */
  place(page: number): void {
    if (this.#rows.place(page)) this.#changed.add(page);
  }

  /** null: those of all heads. */
  release(page: number, heads: Int32Array | null): void {
    this.#rows.release(page, heads);
    this.#changed.add(page);
  }

  /** Puts on the stream what has changed since the last time; pages side by side go in one copy. */
  bring(): void {
    if (this.#changed.size === 0) return;
    const pages = Int32Array.from(this.#changed).sort();
    this.#changed.clear();
    for (let from = 0; from < pages.length;) {
      let to = from + 1;
      while (to < pages.length && pages[to] === pages[to - 1]! + 1) to++;
      this.#memory.write(this.#onDevice, this.#rows.entries(pages[from]!, to - from), pages[from]! * this.heads * ENTRY_BYTES);
      from = to;
    }
  }
}
