/**
 * Cuts a step into runs. A run computes its chunks together, layer by layer: first all keys and values of a layer
 * are written, then all its lists are read. So a prompt's next chunk may come in the same run where it begins at
 * a page border; any other next chunk of a sequence waits for the next run. Pure. Called by cuda-engine.ts.
 */
import { MAX_MOVED_PAGES, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { countMovedPages, ownPages } from '../check-chunk.ts';
import type { Chunk } from '../engine.ts';

export interface RunLimits {
  /** Rows that activations are made for; one longer chunk runs alone. */
  readonly rows: number;
  /** Rows of logits that score prompts: so many may be thousands, and are large. A chunk that asks for more runs alone. */
  readonly scoredRows: number;
  /** Chunks of a run: each may need a slot for what it picks. */
  readonly chunks: number;
  /** Pages that its prompts read together; one that reads more runs alone. */
  readonly promptPages: number;
  /** Whether a prompt's next chunk may come in the same run. */
  readonly joinsPrompts: boolean;
}

export function planRuns(step: readonly Chunk[], limits: RunLimits): Chunk[][] {
  const runs: Chunk[][] = [];
  let run: Chunk[] = [];
  for (const chunk of step) {
    if (run.length > 0 && !mayJoin(run, chunk, limits)) {
      runs.push(run);
      run = [];
    }
    run.push(chunk);
  }
  if (run.length > 0) runs.push(run);
  return runs;
}

function mayJoin(run: readonly Chunk[], chunk: Chunk, { rows, scoredRows, chunks, promptPages, joinsPrompts }: RunLimits): boolean {
  const total = run.reduce((sum, { tokens }) => sum + tokens.length, chunk.tokens.length);
  const moved = run.reduce((sum, { attention }) => sum + countMovedPages(attention), countMovedPages(chunk.attention));
  const before = run.filter(({ sequenceId }) => sequenceId === chunk.sequenceId);
  const scored = run.reduce((sum, { targets }) => sum + (targets?.length ?? 0), chunk.targets?.length ?? 0);
  const fits = total <= rows && scored <= scoredRows && run.length < chunks && moved <= MAX_MOVED_PAGES && countPromptPages([...run, chunk]) <= promptPages;
  return fits && (before.length === 0 || (joinsPrompts && continues(before, chunk)));
}

/** Pages that the prompt chunks of a run read, at most: of each text no more than it has. */
export function countPromptPages(run: readonly Chunk[]): number {
  const texts = new Map<number, { pages: number; listed: number }>();
  for (const chunk of run) {
    if (chunk.phase !== 'prefill') continue;
    const listed = (texts.get(chunk.sequenceId)?.listed ?? 0) + chunk.attention.classes.reduce((sum, { fixed, candidates }) => sum + fixed.length + candidates.length, ownPages(chunk).length);
    texts.set(chunk.sequenceId, { pages: Math.ceil((chunk.start + chunk.tokens.length) / PAGE_TOKENS), listed });
  }
  return [...texts.values()].reduce((sum, { pages, listed }) => sum + Math.min(pages, listed), 0);
}

/** `before`: the sequence's chunks in the run, in order; at least one. */
function continues(before: readonly Chunk[], chunk: Chunk): boolean {
  const last = before.at(-1)!;
  const follows = last.phase === 'prefill' && chunk.phase === 'prefill' && chunk.start === last.start + last.tokens.length && chunk.start % PAGE_TOKENS === 0;
  // Copies of moved pages are made before the run: of what the run itself writes there is none yet.
  return follows && !movesAny(chunk, new Set(chunk.pageTable.subarray(Math.floor(before[0]!.start / PAGE_TOKENS))));
}

function movesAny({ attention }: Chunk, pages: ReadonlySet<number>): boolean {
  return attention.classes.some(({ fixed, positionDelta }) => positionDelta?.some((delta, i) => delta !== 0 && pages.has(fixed[i]!)) ?? false);
}
