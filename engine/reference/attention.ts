/**
 * Attention of one chunk over page lists, key by key in float64: the meaning of `attend`. Stores the chunk's
 * keys and values, picks pages where a list asks for it, then softmaxes over the list and causally over the
 * chunk. Knows no weights. Made by reference-engine.ts for each chunk.
 */
import { PAGE_TOKENS, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { rotate, type Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import { dot, row, zeros, type Matrix } from './matrix.ts';
import type { PageMemory } from './page-memory.ts';
import { bestIndices, pageScore } from './page-score.ts';
import type { SelectionMemory } from './selection-memory.ts';

/** What outlives a chunk. */
export interface AttentionState {
  readonly spec: ModelSpec;
  readonly rope: Rope;
  readonly memory: PageMemory;
  readonly selection: SelectionMemory;
}

/** One KV head of one layer. */
interface Head { readonly layer: number; readonly head: number }

/** Who reads a list: one query head of those that share the KV head, or all of them (null). */
interface Asking extends Head { readonly member: number | null }

/** One token that a query may read. */
interface Readable {
  /** [headDim] */
  readonly key: Float64Array;
  /** [headDim] */
  readonly value: Float64Array;
  /** In the text. */
  readonly position: number;
}

export class ChunkAttention {
  pagesRead = 0;
  pagesScored = 0;
  readonly #state: AttentionState;
  readonly #chunk: Chunk;
  readonly #group: number;
  /** Page id -> its index in the page table. */
  readonly #indexOf: ReadonlyMap<number, number>;

  constructor(state: AttentionState, chunk: Chunk) {
    this.#state = state;
    this.#chunk = chunk;
    this.#group = state.spec.heads / state.spec.kvHeads;
    this.#indexOf = new Map(Array.from(chunk.pageTable, (page, index) => [page, index]));
  }

  /** q: [tokens, heads * headDim]; k, v: [tokens, kvHeads * headDim] -> [tokens, heads * headDim] */
  attend(layer: number, q: Matrix, k: Matrix, v: Matrix): Matrix {
    const out = zeros(q.rows, q.columns);
    for (let head = 0; head < this.#state.spec.kvHeads; head++) {
      const at = { layer, head };
      const own = this.#ownTokens(head, k, v);
      this.#store(at, own);
      const plan = this.#planOf(at);
      const perQueryHead = plan.pickPer === 'queryHead';
      const histories = Array.from({ length: perQueryHead ? this.#group : 1 }, (_, member) =>
        this.#history({ ...at, member: perQueryHead ? member : null }, plan, q));
      for (let token = 0; token < q.rows; token++) {
        const visible = histories.map((history) => this.#inWindow(layer, token, [...history, ...own.slice(0, token + 1)]));
        this.#forGroup(at, q, token, (query, column, member) => {
          const readable = visible[perQueryHead ? member : 0]!;
          out.data.set(softmaxMix(query, readable), token * out.columns + column);
        });
      }
    }
    return out;
  }

  #ownTokens(head: number, k: Matrix, v: Matrix): Readable[] {
    return Array.from({ length: k.rows }, (_, token) => ({
      key: this.#headRow(k, token, head), value: this.#headRow(v, token, head), position: this.#chunk.start + token,
    }));
  }

  #store({ layer, head }: Head, own: readonly Readable[]): void {
    const { pageTable } = this.#chunk;
    for (const { key, value, position } of own) {
      const page = pageTable[Math.floor(position / PAGE_TOKENS)]!;
      this.#state.memory.write({ layer, head, page, slot: position % PAGE_TOKENS }, key, value);
    }
  }

  /** The tokens of the head's page list, picked pages first. [plan.tokens] */
  #history(at: Asking, plan: PagePlan, q: Matrix): Readable[] {
    const picked = this.#picked(at, plan, q).map((page) => ({ page, delta: 0 }));
    const fixed = Array.from(plan.fixed, (page, i) => ({ page, delta: plan.positionDelta?.[i] ?? 0 }));
    const entries = [...picked, ...fixed];
    this.pagesRead += entries.length;
    return entries.flatMap(({ page, delta }, i) => {
      const tokens = Math.min(PAGE_TOKENS, plan.tokens - i * PAGE_TOKENS);
      return Array.from({ length: tokens }, (_, slot) => this.#stored(at, page, slot, delta));
    });
  }

  #stored({ layer, head }: Head, page: number, slot: number, delta: number): Readable {
    const at = { layer, head, page, slot };
    const { memory } = this.#state;
    return { position: this.#positionOf(page, slot), key: this.#shifted(memory.key(at), delta), value: memory.value(at) };
  }

  #positionOf(page: number, slot: number): number {
    const index = this.#indexOf.get(page);
    if (index === undefined) throw new RangeError(`page ${page} is read but is not in the page table of sequence ${this.#chunk.sequenceId}`);
    return index * PAGE_TOKENS + slot;
  }

  #planOf({ layer, head }: Head): PagePlan {
    const { classes, classOf } = this.#chunk.attention;
    return classes[classOf[layer * this.#state.spec.kvHeads + head]!]!;
  }

  #picked(at: Asking, plan: PagePlan, q: Matrix): readonly number[] {
    if (plan.pick === 0) return [];
    const { sequenceId, attention } = this.#chunk;
    const { selection } = this.#state;
    const kept = attention.selection === 'reuse' ? selection.recall(sequenceId, this.#listIndex(at), plan.pick) : null;
    if (kept !== null) return kept;
    const pages = this.#pick(at, plan, q);
    // What a prompt's last chunk picked is not kept: after a prefix hit there would be no such chunk.
    if (this.#chunk.phase === 'decode') selection.remember({ sequenceId, start: this.#chunk.start }, this.#listIndex(at), pages);
    return pages;
  }

  #pick(at: Asking, { candidates, pick }: PagePlan, q: Matrix): readonly number[] {
    if (pick === candidates.length) return [...candidates];
    const queries: Float64Array[] = [];
    const numAsking = this.#chunk.phase === 'decode' ? 1 : q.rows;
    for (let token = 0; token < numAsking; token++) this.#forGroup(at, q, token, (query, _, member) => { if (at.member === null || at.member === member) queries.push(query); });
    this.pagesScored += candidates.length;
    const scores = Float64Array.from(candidates, (page) => pageScore(this.#state.memory, { ...at, page }, queries));
    return bestIndices(scores, pick).map((index) => candidates[index]!);
  }

  #inWindow(layer: number, token: number, readable: readonly Readable[]): readonly Readable[] {
    const window = this.#state.spec.slidingWindow[layer] ?? null;
    if (window === null) return readable;
    const oldest = this.#chunk.start + token - window + 1;
    return readable.filter(({ position }) => position >= oldest);
  }

  /** The key itself, or a copy turned by `delta` positions. */
  #shifted(key: Float64Array, delta: number): Float64Array {
    if (delta === 0) return key;
    const { rope } = this.#state;
    const turn = { cos: new Float64Array(rope.pairs), sin: new Float64Array(rope.pairs) };
    rope.fillShift(turn, delta, this.#chunk.promptTokens);
    const copy = Float64Array.from(key);
    rotate(copy, 0, turn, 0, rope.pairs);
    return copy;
  }

  /** The query heads that share a KV head; `column` is where the head starts in a row. */
  #forGroup({ head }: Head, q: Matrix, token: number, use: (query: Float64Array, column: number, member: number) => void): void {
    for (let member = 0; member < this.#group; member++) {
      const queryHead = head * this.#group + member;
      use(this.#headRow(q, token, queryHead), queryHead * this.#state.spec.headDim, member);
    }
  }

  #headRow(matrix: Matrix, token: number, head: number): Float64Array {
    const { headDim } = this.#state.spec;
    return row(matrix, token).subarray(head * headDim, (head + 1) * headDim);
  }

  /** KV head or query head, over all layers. */
  #listIndex({ layer, head, member }: Asking): number {
    const kvHead = layer * this.#state.spec.kvHeads + head;
    return member === null ? kvHead : kvHead * this.#group + member;
  }
}

/** softmax(query.key / sqrt(headDim)) over the tokens, applied to their values. [headDim] */
function softmaxMix(query: Float64Array, readable: readonly Readable[]): Float64Array {
  const scale = 1 / Math.sqrt(query.length);
  const scores = readable.map(({ key }) => dot(query, key) * scale);
  const highest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map((score) => Math.exp(score - highest));
  const total = weights.reduce((a, b) => a + b, 0);
  const mixed = new Float64Array(query.length);
  readable.forEach(({ value }, i) => {
    for (let channel = 0; channel < mixed.length; channel++) mixed[channel]! += weights[i]! / total * value[channel]!;
  });
  return mixed;
}
