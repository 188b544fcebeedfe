/**
 * Cuts a step into runs of the session. Decode steps share a run when their lists have about one length,
 * since a run's tensors are rectangular; chunks of several tokens run alone, but for those that are attended by blocks. Chunks of one sequence
 * keep their order. Pure. Called by onnx-engine.ts.
 */
import { MAX_MOVED_PAGES, type AttentionPlan } from '../../kvcache/page-lists/page-list.ts';
import { countMovedPages } from '../check-chunk.ts';
import type { Chunk } from '../engine.ts';
import { blockCount, readsBlocks } from './block-inputs.ts';
import type { PickedPages } from './picked-pages.ts';
import type { Run } from './run-inputs.ts';

/** Lists this short always share a run: padding costs less than another pass over the weights. */
const SHORT_LIST_PAGES = 64;

/** Blocks of all sequences of a run: more would not stay in the cache between its nodes. */
const MOST_BLOCKS = 64;

export interface PlanOptions {
  readonly picked: PickedPages;
  /** Whether the graph has attention by blocks. */
  readonly hasBlocks: boolean;
  /**
   * The kernel adds up a single token's list in another order, by parts, where a run has fewer sequences than this: more
   * threads than heads. Such steps run one by one, as chunks, so that they add up what company and verification do.
   */
  readonly leastBatch: number;
}

export function* planRuns(step: readonly Chunk[], options: PlanOptions): Generator<Run> {
  const { picked, hasBlocks } = options;
  const waiting = new Map<string, Chunk[]>();
  const sequences = new Set<number>();
  for (const chunk of step) {
    if (sequences.has(chunk.sequenceId)) {
      yield* decodeRuns(waiting, options);
      sequences.clear();
    }
    const byBlocks = hasBlocks && readsBlocks(chunk);
    if (chunk.tokens.length > 1 && !byBlocks) {
      yield chunkRun(chunk, picked);
      continue;
    }
    const key = byBlocks ? `blocks ${blockCount(chunk)} ${chunk.tokens.length}` : `${singleKind(chunk)} ${sizeClass(chunk.attention)}`;
    addTo(waiting, key, chunk);
    sequences.add(chunk.sequenceId);
  }
  yield* decodeRuns(waiting, options);
}

function* decodeRuns(groups: Map<string, Chunk[]>, options: PlanOptions): Generator<Run> {
  for (const [key, chunks] of groups) {
    if (key.startsWith('blocks')) yield* blockRuns(chunks);
    else for (const part of cutByMovedPages(chunks)) yield* decodeGroup(part, options);
  }
  groups.clear();
}

function* blockRuns(chunks: readonly Chunk[]): Generator<Run> {
  const size = Math.max(1, Math.floor(MOST_BLOCKS / blockCount(chunks[0]!)));
  for (let from = 0; from < chunks.length; from += size) yield { kind: 'blocks', chunks: chunks.slice(from, from + size), pick: 0, numSelecting: 0 };
}

/** A run reads its turned copies at once, so all of them must exist together. */
function cutByMovedPages(chunks: readonly Chunk[]): Chunk[][] {
  const parts: Chunk[][] = [[]];
  let sum = 0;
  for (const chunk of chunks) {
    const numMoved = countMovedPages(chunk.attention);
    sum += numMoved;
    if (sum > MAX_MOVED_PAGES) {
      parts.push([]);
      sum = numMoved;
    }
    parts.at(-1)!.push(chunk);
  }
  return parts;
}

/** One run for each number of pages to pick; chunks that pick nothing now ride in the first. */
function* decodeGroup(chunks: readonly Chunk[], { picked, leastBatch }: PlanOptions): Generator<Run> {
  const kind = singleKind(chunks[0]!);
  if (kind === 'decode' && chunks.length < leastBatch) {
    for (const chunk of chunks) yield chunkRun(chunk, picked);
    return;
  }
  const given: Chunk[] = [];
  const selecting = new Map<number, Chunk[]>();
  for (const chunk of chunks) {
    if (selects(chunk, picked)) addTo(selecting, pickOf(chunk.attention), chunk);
    else given.push(chunk);
  }
  if (selecting.size === 0) yield { kind, chunks: given, pick: 0, numSelecting: 0 };
  let riders = given;
  for (const [pick, group] of selecting) {
    yield { kind, chunks: [...group, ...riders], pick, numSelecting: group.length };
    riders = [];
  }
}

function chunkRun(chunk: Chunk, picked: PickedPages): Run {
  const kind = new Set(chunk.attention.classOf).size === 1 ? 'uniform' : 'split';
  if (!selects(chunk, picked)) return { kind, chunks: [chunk], pick: 0, numSelecting: 0 };
  return { kind, chunks: [chunk], pick: pickOf(chunk.attention), numSelecting: 1 };
}

/** The run that one token of a sequence goes into. */
function singleKind({ attention }: Chunk): 'decode' | 'queryHeads' {
  return attention.classes.some(({ pickPer }) => pickPer === 'queryHead') ? 'queryHeads' : 'decode';
}

function selects({ attention, sequenceId }: Chunk, picked: PickedPages): boolean {
  const pick = pickOf(attention);
  return pick > 0 && (attention.selection === 'fresh' || !picked.has(sequenceId, pick));
}

/** Pages that every selecting class of the plan picks. */
function pickOf({ classes }: AttentionPlan): number {
  const picks = new Set(classes.map(({ pick }) => pick).filter((pick) => pick > 0));
  if (picks.size > 1) throw new RangeError(`the classes of a plan pick ${[...picks].join(' and ')} pages; one number is supported`);
  return [...picks][0] ?? 0;
}

/** Length class of a chunk's longest list: within a power of two of each other, and all short ones together. */
function sizeClass({ classes }: AttentionPlan): number {
  const pages = classes.reduce((most, { fixed, pick }) => Math.max(most, fixed.length + pick), 0);
  return Math.ceil(Math.log2(Math.max(pages, SHORT_LIST_PAGES)));
}

function addTo<Key>(groups: Map<Key, Chunk[]>, key: Key, chunk: Chunk): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [chunk]);
  else group.push(chunk);
}
