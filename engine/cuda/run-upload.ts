/**
 * Brings a run's tables to the device, and what is new in the page tables that it keeps, through pinned memory. Knows
 * bytes and where they go; what they mean is in run-tables.ts and kept-tables.ts. Owned by cuda-engine.ts.
 */
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { RunAddresses } from './cuda-values.ts';
import type { Device } from './device.ts';
import type { DeviceMemory, PinnedBuffer } from './device-memory.ts';
import { bytesOf, type KeptTables } from './kept-tables.ts';
import type { RunTables } from './run-tables.ts';
import type { Workspace } from './workspace.ts';

export interface RunUploadParts {
  readonly device: Device;
  readonly memory: DeviceMemory;
  readonly workspace: Workspace;
  readonly kept: KeptTables;
}

type Tables = Pick<RunTables, 'block' | 'entries' | 'entryPositions'>;
type Addresses = Pick<RunAddresses, keyof Tables>;

/** Entries that follow each other on the device. */
interface Entries {
  readonly pages: Int32Array;
  /** null without windows. */
  readonly positions: Int32Array | null;
  /** Index of the first. */
  readonly first: number;
}

const FIRST_BYTES = 1 << 20;
const ENTRY_BYTES = Int32Array.BYTES_PER_ELEMENT;

export class RunUpload {
  readonly #parts: RunUploadParts;
  #pinned: PinnedBuffer | null = null;
  /** Bytes of it that this run's copies read. */
  #used = 0;

  constructor(parts: RunUploadParts) {
    this.#parts = parts;
  }

  /** Puts the copies on the stream. */
  put({ block, entries, entryPositions }: Tables): Addresses {
    const { device, workspace, kept } = this.#parts;
    const bytes = ENTRY_BYTES * (kept.length + entries.length);
    const to: Addresses = {
      block: workspace.get('tables', block.byteLength), entries: workspace.get('entries', bytes),
      entryPositions: entryPositions === null ? 0n : workspace.get('entry positions', bytes),
    };
    // The run before has read what was copied for it: that memory may be written over.
    device.synchronize();
    this.#used = 0;
    this.#copy(new Uint8Array(block), to.block);
    for (const { pages, first, position } of kept.takeNews(workspace.epoch)) {
      this.#copyEntries({ pages, positions: entryPositions === null ? null : pages.map((_, i) => position + i * PAGE_TOKENS), first }, to);
    }
    this.#copyEntries({ pages: entries, positions: entryPositions, first: kept.length }, to);
    return to;
  }

  #copyEntries({ pages, positions, first }: Entries, to: Addresses): void {
    const offset = BigInt(ENTRY_BYTES * first);
    this.#copy(bytesOf(pages), to.entries + offset);
    if (positions !== null) this.#copy(bytesOf(positions), to.entryPositions + offset);
  }

  #copy(bytes: Uint8Array, to: bigint): void {
    if (bytes.length === 0) return;
    const { device } = this.#parts;
    const { address, view } = this.#take(bytes.length);
    new Uint8Array(view, this.#used, bytes.length).set(bytes);
    device.driver.call('copyToDevice', to, address + BigInt(this.#used), bytes.length, device.stream);
    this.#used += bytes.length;
  }

  /** Pinned memory with room for so many bytes more; smaller memory that copies still read lives on. */
  #take(bytes: number): PinnedBuffer {
    if (this.#pinned === null || this.#used + bytes > this.#pinned.view.byteLength) {
      this.#pinned = this.#parts.memory.pin(Math.max(FIRST_BYTES, 2 * (this.#used + bytes)));
      this.#used = 0;
    }
    return this.#pinned;
  }
}
