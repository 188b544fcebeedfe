/**
 * From chunks to the inputs of one run of the session. A run is either one token of each of several sequences
 * or one chunk of several tokens. Knows the graph's inputs and the memory's row numbers. Called by
 * onnx-engine.ts.
 */
import { Tensor } from 'onnxruntime-node';
import type { PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import type { Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import { blockCount, blockFeeds, blockRows, noBlockFeeds } from './block-inputs.ts';
import { layerNames, type OnnxPrecision } from './graph-interface.ts';
import type { KvMemory } from './kv-memory.ts';
import type { PickedPages } from './picked-pages.ts';
import type { RotatedPages } from './rotated-pages.ts';
import { givenLists, givenRows, selectedLists, type LayerLists, type ListItem } from './run-lists.ts';

/** Chunks that share one run: several with one token each, or a single longer one. */
export interface Run {
  readonly kind: 'decode' | 'queryHeads' | 'uniform' | 'split' | 'blocks';
  readonly chunks: readonly Chunk[];
  /** Pages that the graph picks for each selecting head; 0 without selection. */
  readonly pick: number;
  /** The first so many chunks select now; the others' picked pages are known. */
  readonly numSelecting: number;
}

export type Feeds = Record<string, Tensor>;

export interface PreparedRun {
  readonly feeds: Feeds;
  /** Items whose picks the graph returns, per layer: (chunk, list) = divmod(item, listsOf). Empty without selection. */
  readonly selectedItems: readonly Int32Array[];
  readonly pagesRead: number;
  readonly pagesScored: number;
}

/** A row behind the token of a step that runs as a chunk (run-planner.ts), which nobody reads: no token sees those after it. */
function paddingOf({ kind, chunks }: Run): number {
  return (kind === 'uniform' || kind === 'split') && chunks[0]!.tokens.length === 1 && chunks[0]!.phase === 'decode' ? 1 : 0;
}

/** Lists of one chunk in one layer: of its KV heads, or of its query heads. */
export function listsOf({ kind }: Run, { heads, kvHeads }: Pick<ModelSpec, 'heads' | 'kvHeads'>): number {
  return kind === 'queryHeads' ? heads : kvHeads;
}

export interface RunInputsOptions {
  readonly spec: ModelSpec;
  readonly precision: OnnxPrecision;
  readonly rope: Rope;
  readonly memory: Pick<KvMemory, 'fillRows'>;
  readonly picked: PickedPages;
  readonly rotated: RotatedPages;
}

export class RunInputs {
  readonly #spec: ModelSpec;
  /** The int8 graph tells decode chunks from prefill. */
  readonly #hasSteps: boolean;
  readonly #rope: Rope;
  readonly #memory: Pick<KvMemory, 'fillRows'>;
  readonly #picked: PickedPages;
  readonly #rotated: RotatedPages;

  constructor({ spec, precision, rope, memory, picked, rotated }: RunInputsOptions) {
    this.#spec = spec;
    this.#hasSteps = precision === 'int8';
    this.#rope = rope;
    this.#memory = memory;
    this.#picked = picked;
    this.#rotated = rotated;
  }

  prepare(run: Run): PreparedRun {
    const feeds: Feeds = { ...this.#tokenFeeds(run), ...this.#switches(run), ...this.#blockFeeds(run) };
    const selectedItems: Int32Array[] = [];
    let pagesRead = 0;
    let pagesScored = 0;
    const fixed = new FixedPages(this.#rotated);
    for (let layer = 0; layer < this.#spec.layers; layer++) {
      const items = this.#items(run, layer, fixed);
      const lists = this.#lists(run, items);
      const names = layerNames(layer) as Record<string, string>;
      for (const [what, tensor] of layerTensors(run, { items, lists, kvHeads: this.#spec.kvHeads })) feeds[names[what]!] = tensor;
      selectedItems.push(lists.items);
      for (const { plan, fixed: pages, selects } of items) {
        pagesRead += pages.length + plan.pick;
        if (selects) pagesScored += plan.candidates.length;
      }
    }
    return { feeds, selectedItems, pagesRead, pagesScored };
  }

  #lists({ kind, chunks, pick }: Run, items: readonly ListItem[]): LayerLists {
    if (kind === 'blocks') return givenRows(blockRows(items, blockCount(chunks[0]!)));
    const equal = kind !== 'split';
    return pick > 0 ? selectedLists(items, { equal, pick }) : givenLists(items, equal);
  }

  #items(run: Run, layer: number, fixed: FixedPages): ListItem[] {
    const { kvHeads } = this.#spec;
    const numLists = listsOf(run, this.#spec);
    return run.chunks.flatMap((chunk, c) =>
      Array.from({ length: numLists }, (_, list): ListItem => {
        const head = Math.floor(list / (numLists / kvHeads));
        const plan = chunk.attention.classes[chunk.attention.classOf[layer * kvHeads + head]!]!;
        const selects = plan.pick > 0 && c < run.numSelecting;
        const picked = plan.pick > 0 && !selects ? this.#picked.get(chunk.sequenceId, layer * numLists + list, plan.pick) : null;
        const fillRows: ListItem['fillRows'] = (target, at, pages) => { this.#memory.fillRows(target, at, { layer, kvHead: head, pages }); };
        return { fillRows, plan, fixed: fixed.of(chunk, plan), picked, selects };
      }),
    );
  }

  #tokenFeeds(run: Run): Feeds {
    const { chunks } = run;
    const numTokens = chunks.reduce((count, chunk) => count + chunk.tokens.length, paddingOf(run));
    const tokens = new Int32Array(numTokens);
    const { pairs } = this.#rope;
    const cos = new Float32Array(numTokens * pairs); // [tokens, headDim / 2]
    const sin = new Float32Array(numTokens * pairs); // [tokens, headDim / 2]
    const outputRows: number[] = [];
    let at = 0;
    for (const chunk of chunks) {
      const end = at + chunk.tokens.length;
      tokens.set(chunk.tokens, at);
      const table = { cos: cos.subarray(at * pairs, end * pairs), sin: sin.subarray(at * pairs, end * pairs) };
      this.#rope.fill(table, { start: chunk.start, tokens: chunk.tokens.length, promptTokens: chunk.promptTokens });
      for (let row = firstOutputRow(chunk, at, end); row < end; row++) outputRows.push(row);
      at = end;
    }
    return {
      tokens: new Tensor('int32', tokens, [numTokens]),
      cos: new Tensor('float32', cos, [numTokens, pairs]),
      sin: new Tensor('float32', sin, [numTokens, pairs]),
      outputRows: new Tensor('int32', Int32Array.from(outputRows), [outputRows.length]),
    };
  }

  /** The int8 graph has inputs of its own for blocks. */
  #blockFeeds({ kind, chunks }: Run): Feeds {
    if (!this.#hasSteps) return {};
    return kind === 'blocks' ? blockFeeds(chunks, this.#spec) : noBlockFeeds();
  }

  #switches(run: Run): Feeds {
    const { kind, chunks, pick } = run;
    const { phase, tokens } = chunks[0]!;
    const asking = Int32Array.from({ length: phase === 'decode' ? 1 : tokens.length }, (_, token) => token);
    const flag = (value: boolean): Tensor => new Tensor('bool', Uint8Array.of(value ? 1 : 0), []);
    const { headDim } = this.#spec;
    const numItems = BigInt(chunks.length * listsOf(run, this.#spec));
    return {
      decode: flag(kind === 'decode'),
      queryHeads: flag(kind === 'queryHeads'),
      uniform: flag(kind === 'uniform'),
      select: flag(pick > 0),
      ...(this.#hasSteps ? { steps: flag(phase === 'decode') } : {}),
      asking: new Tensor('int32', asking, [asking.length]),
      pick: new Tensor('int64', BigInt64Array.of(BigInt(pick)), [1]),
      listShape: new Tensor('int64', BigInt64Array.of(numItems, 1n, -1n, BigInt(headDim)), [4]),
    };
  }
}

/** plan.fixed with rotated copies in place of shifted pages, once per plan and run. */
class FixedPages {
  readonly #rotated: RotatedPages;
  readonly #known = new Map<PagePlan, Int32Array>();

  constructor(rotated: RotatedPages) {
    this.#rotated = rotated;
  }

  of(chunk: Chunk, plan: PagePlan): Int32Array {
    const { fixed, positionDelta } = plan;
    if (positionDelta === null) return fixed;
    const known = this.#known.get(plan);
    if (known !== undefined) return known;
    const moved = fixed.map((page, i) => this.#rotated.get(chunk, page, positionDelta[i]!));
    this.#known.set(plan, moved);
    return moved;
  }
}

/** At least one row always: the graph's last layers cannot run on none. */
function firstOutputRow(chunk: Chunk, from: number, end: number): number {
  return chunk.logits === 'all' ? from : end - 1;
}

interface LayerParts {
  readonly items: readonly ListItem[];
  readonly lists: LayerLists;
  readonly kvHeads: number;
}

/** Named as in layerNames. */
function layerTensors(run: Run, { items, lists, kvHeads }: LayerParts): readonly [string, Tensor][] {
  const { past, totals } = listTokens(run, items);
  const numSelected = lists.items.length;
  return [
    ['rows', new Tensor('int32', lists.rows, [lists.rows.length])],
    ['cuts', new Tensor('int64', run.kind === 'split' ? BigInt64Array.from(lists.lengths, BigInt) : new BigInt64Array(kvHeads), [kvHeads])],
    ['past', new Tensor('int32', past, [past.length])],
    ['totals', new Tensor('int32', totals, [totals.length])],
    ['items', new Tensor('int32', lists.items, [numSelected])],
    ['candidates', new Tensor('int32', lists.candidates, [numSelected, lists.numCandidates])],
    ['bias', new Tensor('float32', lists.bias, [numSelected, lists.numCandidates])],
    ['order', new Tensor('int32', lists.order, [lists.order.length])],
  ];
}

/** Per batch entry of the attention kernel: valid tokens with the new ones, less one; and their total. */
function listTokens(run: Run, items: readonly ListItem[]): { past: Int32Array; totals: Int32Array } {
  const { kind, chunks } = run;
  const isBatch = kind === 'decode' || kind === 'queryHeads';
  const numTokens = isBatch ? 1 : chunks[0]!.tokens.length + paddingOf(run);
  const lists = kind === 'uniform' ? items.slice(0, 1) : items;
  const past = Int32Array.from(lists, ({ plan }) => plan.tokens + numTokens - 1);
  const totals = past.map((tokens) => tokens + 1);
  return { past, totals: isBatch ? Int32Array.of(totals.reduce((a, b) => Math.max(a, b))) : totals };
}
