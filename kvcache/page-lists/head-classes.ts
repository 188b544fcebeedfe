/**
 * Which KV heads share a list. A technique has classes of its own for layers that see the whole text;
 * layers with a sliding window read their window whatever the technique: one class per distinct window.
 * Knows no page ids. Called by each policy's constructor.
 */
import type { HeadGeometry, PagePlan } from './page-list.ts';
import { pagesFrom, windowPage } from './lists.ts';

export interface HeadClasses {
  /** The technique's own classes first, then the windows. [layers * kvHeads] */
  readonly classOf: Uint8Array;
  /** Distinct sliding windows, in tokens. */
  readonly windows: readonly number[];
}

/** `ownClassOf` gives the class, below `numOwn`, of a KV head (layer * kvHeads + head) without a window. */
export function classifyHeads(geometry: HeadGeometry, numOwn: number, ownClassOf: (head: number) => number): HeadClasses {
  const windows = [...new Set(geometry.slidingWindow.filter((window) => window !== null))];
  const classOf = new Uint8Array(geometry.layers * geometry.kvHeads).map((_, head) => {
    const window = geometry.slidingWindow[Math.floor(head / geometry.kvHeads)] ?? null;
    return window === null ? ownClassOf(head) : numOwn + windows.indexOf(window);
  });
  return { classOf, windows };
}

/** One list per window: the pages that reach into it. */
export function windowLists(windows: readonly number[], pageTable: Int32Array, start: number): PagePlan[] {
  return windows.map((window) => pagesFrom(pageTable, windowPage(start, window), start));
}
