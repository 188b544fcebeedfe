/**
 * Cuts a step into runs. A run computes its chunks together, layer by layer, so each sequence comes in it once;
 * the next chunk of a sequence waits for the next run. Pure. Called by cuda-engine.ts.
 */
import { MAX_MOVED_PAGES } from '../../kvcache/page-lists/page-list.ts';
import { countMovedPages } from '../check-chunk.ts';
import type { Chunk } from '../engine.ts';

export interface RunLimits {
  /** Rows that activations are made for; one longer chunk runs alone. */
  readonly rows: number;
  /** Chunks of a run: each may need a slot for what it picks. */
  readonly chunks: number;
}

export function planRuns(step: readonly Chunk[], limits: RunLimits): Chunk[][] {
  const runs: Chunk[][] = [];
  let run: Chunk[] = [];
  let rows = 0;
  let moved = 0;
  let sequences = new Set<number>();
  for (const chunk of step) {
    const ownMoved = countMovedPages(chunk.attention);
    const fits = rows + chunk.tokens.length <= limits.rows && run.length < limits.chunks && moved + ownMoved <= MAX_MOVED_PAGES;
    if (run.length > 0 && (!fits || sequences.has(chunk.sequenceId))) {
      runs.push(run);
      [run, rows, moved, sequences] = [[], 0, 0, new Set()];
    }
    run.push(chunk);
    sequences.add(chunk.sequenceId);
    rows += chunk.tokens.length;
    moved += ownMoved;
  }
  if (run.length > 0) runs.push(run);
  return runs;
}
