/**
 * The device's selection memory: the pages that chunks pick, in slots whose length is that of the longest list of picks so
 * far. Which slot holds whose picks, selection-slots.ts knows. Owned by cuda-engine.ts.
 */
import type { AttentionPlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';
import { SelectionSlots } from './selection-slots.ts';

const SELECTION_BYTES = 256 << 20;
const MOST_SLOTS = 1024;
const LEAST_SLOTS = 128;
const FIRST_PICK = 64;
const ID_BYTES = 4;

/** Where a chunk's picks lie (-1: it picks nothing), and whether they are made in this run. */
export interface PickPlace {
  readonly slot: number;
  readonly fresh: boolean;
}

export class SelectionMemory {
  /** Pages of a slot, of each head of each layer. */
  maxPick = FIRST_PICK;
  readonly #memory: DeviceMemory;
  /** Lists of picks in a slot. */
  readonly #lists: number;
  #slots: SelectionSlots;
  #buffer: DeviceBuffer;

  constructor(memory: DeviceMemory, { layers, heads }: Pick<ModelSpec, 'layers' | 'heads'>) {
    this.#memory = memory;
    this.#lists = layers * heads;
    ({ slots: this.#slots, buffer: this.#buffer } = this.#allocate());
  }

  /** [slots, layers, heads, maxPick] page ids */
  get address(): bigint {
    return this.#buffer.address;
  }

  get numSlots(): number {
    return this.#slots.numSlots;
  }

  /** Whether these chunks pick more than a slot holds. */
  lacksRoom(chunks: readonly Chunk[]): boolean {
    return mostPicked(chunks) > this.maxPick;
  }

  /** Other memory, with longer slots: all sequences pick anew. Nothing may run that reads the present one. */
  grow(chunks: readonly Chunk[]): void {
    this.#memory.free(this.#buffer);
    this.maxPick = 2 ** Math.ceil(Math.log2(mostPicked(chunks)));
    ({ slots: this.#slots, buffer: this.#buffer } = this.#allocate());
  }

  /** `inUse`: slots that the run reads or writes; the chunk's is added. */
  place({ attention, sequenceId, start }: Chunk, inUse: Set<number>): PickPlace {
    if (attention.classes.every(({ pick }) => pick === 0)) return { slot: -1, fresh: false };
    const shape = shapeOf(attention);
    const kept = attention.selection === 'reuse' ? this.#slots.recall(sequenceId, shape) : null;
    const slot = kept ?? this.#slots.take(sequenceId, start, shape, inUse);
    inUse.add(slot);
    return { slot, fresh: kept === null };
  }

  /** Forgets what a sequence picked at `length` or later. */
  truncate(sequenceId: number, length: number): void {
    this.#slots.truncate(sequenceId, length);
  }

  forget(sequenceId: number): void {
    this.#slots.forget(sequenceId);
  }

  #allocate(): { slots: SelectionSlots; buffer: DeviceBuffer } {
    const slotBytes = this.#lists * this.maxPick * ID_BYTES;
    const numSlots = Math.max(LEAST_SLOTS, Math.min(MOST_SLOTS, Math.floor(SELECTION_BYTES / slotBytes)));
    return { slots: new SelectionSlots(numSlots), buffer: this.#memory.allocate(numSlots * slotBytes, 'picked pages') };
  }
}

function mostPicked(chunks: readonly Chunk[]): number {
  return chunks.reduce((most, { attention }) => attention.classes.reduce((a, { pick }) => Math.max(a, pick), most), 0);
}

/** What two plans have in common whose picks can stand for each other's. */
function shapeOf({ classes }: AttentionPlan): string {
  let shape = '';
  for (const { pick, pickPer } of classes) shape += `${pick}${pickPer} `;
  return shape;
}
