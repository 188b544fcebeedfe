/**
 * Copies of pages whose keys are turned to another position (PagePlan.positionDelta), kept in spare pages
 * behind the pool. A copy serves until its delta changes, which happens once per page of new text.
 * Owned by onnx-engine.ts.
 */
import type { Chunk } from '../engine.ts';
import type { Rope } from '../model/rope.ts';
import type { KvMemory } from './kv-memory.ts';

interface Copy {
  readonly sequenceId: number;
  readonly page: number;
  readonly delta: number;
}

export class RotatedPages {
  readonly #memory: KvMemory;
  readonly #rope: Rope;
  readonly #firstPage: number;
  /** What each spare page holds; null is free. In order of use, oldest first, are the keys of #used. */
  readonly #copies: (Copy | null)[];
  readonly #used = new Set<number>();

  constructor({ memory, rope, firstPage, numPages }: { memory: KvMemory; rope: Rope; firstPage: number; numPages: number }) {
    this.#memory = memory;
    this.#rope = rope;
    this.#firstPage = firstPage;
    this.#copies = Array.from({ length: numPages }, () => null);
  }

  /** The page to read instead of `page`; valid until the next `numPages` other copies are asked for. */
  get({ sequenceId, promptTokens }: Pick<Chunk, 'sequenceId' | 'promptTokens'>, page: number, delta: number): number {
    if (delta === 0) return page;
    const known = this.#copies.findIndex((copy) => copy?.sequenceId === sequenceId && copy.page === page);
    const slot = known >= 0 ? known : this.#freeSlot();
    const to = this.#firstPage + slot;
    if (this.#copies[slot]?.delta !== delta || known < 0) {
      this.#memory.copyRotated({ from: page, to, delta, frequencies: this.#rope.frequencies(promptTokens) });
      this.#copies[slot] = { sequenceId, page, delta };
    }
    this.#used.delete(slot);
    this.#used.add(slot);
    return to;
  }

  forget(sequenceId: number): void {
    this.#copies.forEach((copy, slot) => {
      if (copy?.sequenceId !== sequenceId) return;
      this.#copies[slot] = null;
      this.#used.delete(slot);
    });
  }

  #freeSlot(): number {
    const free = this.#copies.indexOf(null);
    if (free >= 0) return free;
    const oldest = this.#used.values().next();
    if (oldest.done === true) throw new RangeError('no spare pages for positions that move');
    return oldest.value;
  }
}
