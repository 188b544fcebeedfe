/**
 * Who owns the bytes behind page ids, as kvcache/ sees it: an engine, which is told what it may write over. Knows
 * nothing. Called by page-pool.ts; scheduler/loop.ts makes one of an engine.
 */

export interface PageOwner {
  /** KV heads of all layers: rows of memory that a whole page takes. */
  readonly headsPerPage: number;
  /** Page ids are 0..numIds-1. */
  readonly numIds: number;
  /** The rows of these heads (layer * kvHeads + head) of the page are free, or all that are left (null). */
  release(page: number, heads: Int32Array | null): void;
}

/** Pages that are whole or free, and nobody to be told. */
export function wholePages(numPages: number): PageOwner {
  return { headsPerPage: 1, numIds: numPages, release: () => undefined };
}
