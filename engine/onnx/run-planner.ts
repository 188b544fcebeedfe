/**
 * Cuts a step into runs of the session. Decode steps share a run when their lists have about one length and
 * they select alike, since a run's tensors are rectangular; prefill chunks run alone. Chunks of one sequence
 * keep their order. Pure. Called by onnx-engine.ts.
 */
import type { AttentionPlan, PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import type { PickedPages } from './picked-pages.ts';
import type { Run } from './run-inputs.ts';

/** Lists this short always share a run: padding costs less than another pass over the weights. */
const SHORT_LIST_PAGES = 64;

export function* planRuns(step: readonly Chunk[], picked: PickedPages): Generator<Run> {
  const waiting = new Map<string, Chunk[]>();
  for (const chunk of step) {
    const isWaiting = [...waiting.values()].some((group) => group.some(({ sequenceId }) => sequenceId === chunk.sequenceId));
    if (isWaiting) yield* decodeRuns(waiting, picked);
    if (chunk.tokens.length > 1) yield prefillRun(chunk);
    else addTo(waiting, decodeKey(chunk, picked), chunk);
  }
  yield* decodeRuns(waiting, picked);
}

function* decodeRuns(groups: Map<string, Chunk[]>, picked: PickedPages): Generator<Run> {
  for (const chunks of groups.values()) yield { kind: 'decode', chunks, pick: selects(chunks[0]!, picked) ? pickOf(chunks[0]!.attention) : 0 };
  groups.clear();
}

function prefillRun(chunk: Chunk): Run {
  const used = new Set(chunk.attention.classOf);
  return { kind: used.size === 1 ? 'uniform' : 'split', chunks: [chunk], pick: pickOf(chunk.attention) };
}

/** Chunks with equal keys fit into one run. */
function decodeKey(chunk: Chunk, picked: PickedPages): string {
  const { classes } = chunk.attention;
  if (selects(chunk, picked)) return `select ${pickOf(chunk.attention)} of ${sizeClass(longest(classes, ({ candidates }) => candidates.length))}`;
  return `given ${sizeClass(longest(classes, ({ fixed, pick }) => fixed.length + pick))}`;
}

function selects(chunk: Chunk, picked: PickedPages): boolean {
  const pick = pickOf(chunk.attention);
  if (pick === 0) return false;
  return chunk.attention.selection === 'fresh' || !picked.has(chunk.sequenceId, pick);
}

/** Pages that every selecting class of the plan picks. */
function pickOf({ classes }: AttentionPlan): number {
  const picks = new Set(classes.map(({ pick }) => pick).filter((pick) => pick > 0));
  if (picks.size > 1) throw new RangeError(`the classes of a plan pick ${[...picks].join(' and ')} pages; one number is supported`);
  return [...picks][0] ?? 0;
}

function longest(classes: readonly PagePlan[], length: (plan: PagePlan) => number): number {
  return classes.reduce((most, plan) => Math.max(most, length(plan)), 0);
}

/** Within a power of two of each other, and all short ones together. */
function sizeClass(pages: number): number {
  return Math.ceil(Math.log2(Math.max(pages, SHORT_LIST_PAGES)));
}

function addTo(groups: Map<string, Chunk[]>, key: string, chunk: Chunk): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [chunk]);
  else group.push(chunk);
}
