/**
 * Copies of pages whose keys are turned to another position (PagePlan.positionDelta), in spare pages behind the
 * pool. A copy of a full page serves until its delta changes, which happens once per page of new text. Knows page
 * ids only. Owned by cuda-engine.ts; run-tables.ts asks for the ids.
 */

import type { Chunk } from '../engine.ts';

/** A page that a list names, to be read as if it stood `delta` tokens later. */
export interface MovedEntry {
  readonly page: number;
  readonly delta: number;
  /** Whether all its tokens are written. */
  readonly isFull: boolean;
}

/** One copy to make before the run: kernels/turn_pages.cu. */
export interface Move {
  readonly from: number;
  readonly to: number;
  readonly delta: number;
  /** Prompt length of the sequence: the base of dynamic RoPE. */
  readonly promptTokens: number;
}

interface Copy {
  readonly sequenceId: number;
  readonly page: number;
  readonly delta: number;
}

export class MovedPages {
  readonly #firstPage: number;
  /** What each spare page holds; null is free. */
  readonly #copies: (Copy | null)[];
  /** Spare pages in order of use, oldest first. */
  readonly #used = new Set<number>();

  constructor(firstPage: number, numPages: number) {
    this.#firstPage = firstPage;
    this.#copies = Array.from({ length: numPages }, () => null);
  }

  /**
   * The page to read instead of `page`; a copy that has to be made is added to `moves`. Of a page that
   * is full a copy can be kept.
   */
  get({ sequenceId, promptTokens }: Pick<Chunk, 'sequenceId' | 'promptTokens'>, { page, delta, isFull }: MovedEntry, moves: Move[]): number {
    if (delta === 0) return page;
    const known = this.#copies.findIndex((copy) => copy?.sequenceId === sequenceId && copy.page === page && copy.delta === delta);
    const slot = known >= 0 ? known : this.#freeSlot();
    const to = this.#firstPage + slot;
    if (known < 0) {
      moves.push({ from: page, to, delta, promptTokens });
      // A page that is still written to is copied anew each time.
      this.#copies[slot] = isFull ? { sequenceId, page, delta } : null;
    }
    this.#used.delete(slot);
    this.#used.add(slot);
    return to;
  }

  /** Before the pages of a run are asked for: copies of pages that were not full are free again. */
  begin(): void {
    for (const slot of this.#used) if (this.#copies[slot] === null) this.#used.delete(slot);
  }

  /** Drops the copies of these pages of a sequence: they will be written again. */
  truncate(sequenceId: number, pages: ReadonlySet<number>): void {
    this.#drop((copy) => copy.sequenceId === sequenceId && pages.has(copy.page));
  }

  forget(sequenceId: number): void {
    this.#drop((copy) => copy.sequenceId === sequenceId);
  }

  #drop(isDropped: (copy: Copy) => boolean): void {
    this.#copies.forEach((copy, slot) => {
      if (copy === null || !isDropped(copy)) return;
      this.#copies[slot] = null;
      this.#used.delete(slot);
    });
  }

  #freeSlot(): number {
    const free = this.#copies.findIndex((copy, slot) => copy === null && !this.#used.has(slot));
    if (free >= 0) return free;
    for (const slot of this.#used) {
      if (this.#copies[slot] !== null) {
        this.#used.delete(slot);
        return slot;
      }
    }
    throw new RangeError('no spare pages for positions that move');
  }
}
