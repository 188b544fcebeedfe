/**
 * Driving an engine by hand in tests: texts, plain page lists, chunks. Built apart from the scheduler and the
 * policies, so that engine tests need neither. Called by engine tests.
 */
import { PAGE_TOKENS, type AttentionPlan, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk, Engine } from '../../engine/engine.ts';
import { SeededRandom } from '../seeded-random.ts';

export interface Text {
  readonly sequenceId: number;
  readonly tokens: Int32Array;
  /** Covers all tokens. */
  readonly pageTable: Int32Array;
  readonly promptTokens: number;
}

/** The list of a chunk that starts at `start`. */
export type Planner = (engine: Engine, text: Text, start: number) => AttentionPlan;

export interface ReadOptions {
  /** Tokens per step. */
  readonly chunkTokens?: number;
  readonly planner?: Planner;
  /** Decode for chunks of one token, prefill for longer ones, unless given. */
  readonly phase?: Chunk['phase'];
}

export function pagesFor(tokens: number): number {
  return Math.ceil(tokens / PAGE_TOKENS);
}

/** A random text on pages firstPage, firstPage + 1, ... */
export function randomText(sequenceId: number, numTokens: number, { vocab, firstPage = 0 }: { vocab: number; firstPage?: number }): Text {
  const random = new SeededRandom(1000 + sequenceId);
  return {
    sequenceId, promptTokens: numTokens,
    tokens: Int32Array.from({ length: numTokens }, () => random.below(vocab)),
    pageTable: Int32Array.from({ length: pagesFor(numTokens) }, (_, i) => firstPage + i),
  };
}

/** A list of these pages, read in full but for what the last one lacks. */
export function listOf(fixed: ArrayLike<number>, tokens: number): PagePlan {
  return { fixed: Int32Array.from(fixed), positionDelta: null, candidates: new Int32Array(0), pick: 0, pickPer: 'kvHead', tokens };
}

/** The same list for every head. */
export function planOf(engine: Engine, plan: PagePlan, selection: AttentionPlan['selection'] = 'fresh'): AttentionPlan {
  return { classes: [plan], classOf: new Uint8Array(engine.spec.layers * engine.spec.kvHeads), selection };
}

/** Everything before the chunk. */
export const dense: Planner = (engine, { pageTable }, start) =>
  planOf(engine, listOf(pageTable.subarray(0, pagesFor(start)), start));

/** The first page, `pick` of the middle, the last `recent` pages; dense while there is no middle. */
export function picking(pick: number, recent = 2, selection: AttentionPlan['selection'] = 'fresh'): Planner {
  return (engine, text, start) => {
    const used = pagesFor(start);
    const middle = text.pageTable.slice(1, Math.max(1, used - recent));
    if (middle.length <= pick) return dense(engine, text, start);
    const fixed = [text.pageTable[0]!, ...text.pageTable.subarray(used - recent, used)];
    const missing = used * PAGE_TOKENS - start;
    const tokens = (fixed.length + pick) * PAGE_TOKENS - missing;
    return planOf(engine, { fixed: Int32Array.from(fixed), positionDelta: null, candidates: middle, pick, pickPer: 'kvHead', tokens }, selection);
  };
}

export function chunkOf(engine: Engine, text: Text, range: { start: number; end: number }, options: ReadOptions & { logits?: Chunk['logits'] } = {}): Chunk {
  const { start, end } = range;
  return {
    phase: options.phase ?? (end - start === 1 ? 'decode' : 'prefill'),
    sequenceId: text.sequenceId, tokens: text.tokens.slice(start, end), start, pageTable: text.pageTable,
    attention: (options.planner ?? dense)(engine, text, start),
    promptTokens: text.promptTokens, logits: options.logits ?? 'all',
  };
}

/** Tokens from..to of the text, chunk by chunk -> all rows of logits. [to - from, vocab] */
export async function readText(engine: Engine, text: Text, options: ReadOptions & { from?: number; to?: number } = {}): Promise<Float32Array<ArrayBuffer>> {
  const { from = 0, to = text.tokens.length, chunkTokens = to - from } = options;
  const rows = new Float32Array((to - from) * engine.spec.vocab);
  for (let start = from; start < to; start += chunkTokens) {
    const chunk = chunkOf(engine, text, { start, end: Math.min(start + chunkTokens, to) }, options);
    const { logits } = await engine.run([chunk]);
    rows.set(logits[0]!, (start - from) * engine.spec.vocab);
  }
  return rows;
}

/** Root mean square of a - b over that of b; NaN anywhere gives NaN. */
export function relativeError(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) throw new RangeError(`compared ${a.length} logits with ${b.length}`);
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(difference / size);
}
