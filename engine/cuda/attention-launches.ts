/**
 * What stands between a layer's product of queries, keys and values and its output product, for one run: keys and values go
 * to their pages, pages are scored and picked, lists are read. Knows no decoder and no sequences. Made by cuda-ops.ts for
 * each run, and by the benchmark of single kernels.
 */
import type { CudaValue, OpsParts, RunAddresses } from './cuda-values.ts';
import { value } from './cuda-values.ts';
import type { Geometry, KernelArgument } from './kernel.ts';
import { headPad, type KvFormat, type WidePages } from './kv-memory.ts';
import { bucketOf, type RunTables } from './run-tables.ts';

const ELEMENT_BYTES = 2;
const ROW_THREADS = 256;
const ATTEND_THREADS = 128;
/** attend_token: query heads that fit a tile, and what a layer's lists may have: early blocks lie unevenly, which longer lists would feel. */
const MOST_TOKEN_GROUP = 16;
const MOST_TOKEN_BYTES = 40 << 20;
const HOPPER_THREADS = 384;
/**
 * Attention of few lists is cut into so many blocks for each multiprocessor, if they fit. One is best at every depth; of
 * those that widen pages of 8 bits one at a time would leave memory idle while it widens.
 */
const BLOCKS_PER_MULTIPROCESSOR: Readonly<Record<KvFormat, number>> = { element: 1, int8: 3, fp8: 3 };
/** MOST_SPLITS of kernels/attend.cu. */
const MOST_SPLITS = 192;
/** Their shares of all rows, where stages take less. */
const LEAST_ATTEND_SHARED = 64 * MOST_SPLITS * 4;
const SCORE_BLOCKS_PER_MULTIPROCESSOR = 4;
/** MOST_THREADS of kernels/pick.cu: for lists with more than FEW_CANDIDATES that have a multiprocessor each. */
const MOST_PICK_THREADS = 1024;
const FEW_CANDIDATES = 1024;
/** A part of a list with fewer pages costs more to join than it saves. */
const LEAST_PAGES_PER_SPLIT = 2;
const PAGES_PER_SCORE_BLOCK = 16;
/** ATTEND_HOPPER_SHARED of kernels/attend_hopper.cu for its two widths of heads. */
const HOPPER_SHARED: Readonly<Record<number, number>> = { 64: 5 * 32768 + 160 + 1024, 128: 3 * 65536 + 96 + 1024 };

export class AttentionLaunches {
  readonly #parts: OpsParts;
  readonly #tables: RunTables;
  readonly #at: RunAddresses;

  constructor(parts: OpsParts, tables: RunTables, addresses: RunAddresses) {
    this.#parts = parts;
    this.#tables = tables;
    this.#at = addresses;
  }

  /** All of it. -> [rows, heads * headDim] */
  attend(layer: number, q: CudaValue, k: CudaValue): CudaValue {
    const { heads, kvHeads } = this.#parts.spec;
    const { isSingle, sizes } = this.#tables;
    if (this.#parts.fast && isSingle && sizes.scoreUnits === 0 && heads / kvHeads <= MOST_TOKEN_GROUP && this.bytes <= MOST_TOKEN_BYTES) return this.#attendToken(layer, q, k);
    this.write(layer, q, k);
    if (sizes.scoreUnits > 0) this.select(layer, q);
    return this.read(layer, q);
  }

  /** Norms and turns q and k, writes k and v to their pages. Public, as the next two, for benchmarks of one part. */
  write(layer: number, q: CudaValue, k: CudaValue): void {
    const { spec, kernels, kv } = this.#parts;
    kernels.get('rope_write').launch(
      { grid: [this.#tables.sizes.writes, spec.kvHeads], block: [ATTEND_THREADS] },
      q.address, q.stride, 0n, q.headNorm, k.headNorm, spec.normEps, this.#at.ropeTable, this.#table('writes'),
      kv.keys, kv.values, kv.statistics, ...this.#pageRows(layer), spec.kvHeads, spec.heads / spec.kvHeads);
  }

  /** What a recorded run depends on, beside the sizes of its tables. */
  get shape(): string {
    const { isSingle, sizes, maxCandidates } = this.#tables;
    return `${isSingle} ${this.bytes} ${this.splits} ${sizes.scoreUnits > 0 ? scoreStride(maxCandidates) : 0}`;
  }

  /** About what attention reads in one layer: lists by their bucket, so that a recorded run serves a growing text. */
  get bytes(): number {
    const { spec: { kvHeads, headDim }, kv } = this.#parts;
    const pageBytes = 64 * (kv.format === 'element' ? headPad(headDim) * 4 : 2 * (headPad(headDim) + 4));
    return this.#tables.sizes.units * bucketOf(this.#tables.longestList + 1) * kvHeads * pageBytes;
  }

  /** Scores candidates and picks. */
  select(layer: number, q: CudaValue): void {
    const { spec, kernels, kv, workspace, multiprocessors } = this.#parts;
    const { layers, heads, kvHeads } = spec;
    const { sizes, maxCandidates, isSingle } = this.#tables;
    const stride = scoreStride(maxCandidates);
    const scores = workspace.get('scores', sizes.scoreUnits * heads * stride * 4);
    const ofPrefill = sizes.hopperScoreUnits;
    const ofDecode = sizes.scoreUnits - ofPrefill;
    const launch = (name: 'score' | 'score_hopper', first: number, count: number, block: number, pagesPerBlock: number, perDevice: number, shared: number): void => {
      if (count === 0) return;
      const blocks = Math.max(1, Math.min(Math.ceil(stride / pagesPerBlock), Math.floor(perDevice * multiprocessors / (kvHeads * count))));
      kernels.get(name).launch(
        { grid: [blocks, kvHeads, count], block: [block], shared },
        q.address, q.stride, kv.statistics, ...this.#pageRows(layer), this.#table('scoreUnits') + BigInt(4 * first), this.#table('chunks'), this.#table('lists'), this.#at.entries,
        this.#table('classOf'), scores + BigInt(first * heads * stride * 4), stride, layer, kvHeads, heads / kvHeads, ...(name === 'score' ? [isSingle ? 1 : 0] : []));
    };
    launch('score', 0, ofDecode, ATTEND_THREADS, PAGES_PER_SCORE_BLOCK, SCORE_BLOCKS_PER_MULTIPROCESSOR, 0);
    launch('score_hopper', ofDecode, ofPrefill, ROW_THREADS, 2 * PAGES_PER_SCORE_BLOCK, 1, spec.headDim * 1024 + 1024);
    const hasRoom = sizes.scoreUnits * kvHeads <= multiprocessors;
    kernels.get('pick').launch(
      { grid: [heads, sizes.scoreUnits], block: [hasRoom && stride > FEW_CANDIDATES ? MOST_PICK_THREADS : ROW_THREADS] },
      scores, stride, this.#table('scoreUnits'), this.#table('chunks'), this.#table('lists'), this.#at.entries, this.#table('classOf'),
      this.#at.selection, this.#parts.maxPick(), layer, layers, kvHeads, heads / kvHeads);
  }

  /** Attention over the lists and the chunks' own tokens. */
  read(layer: number, q: CudaValue): CudaValue {
    const { spec, workspace } = this.#parts;
    const width = spec.heads * spec.headDim;
    const out = workspace.get('attended', this.#tables.sizes.rows * width * ELEMENT_BYTES);
    if (this.#tables.sizes.units > 0) this.#attend(layer, q, out);
    if (this.#tables.sizes.hopperUnits > 0) this.#attendHopper(layer, q, out);
    return value(out, width);
  }

  #attend(layer: number, q: CudaValue, out: bigint): void {
    const { geometry, args } = this.#attention(layer, q, out);
    // Begun early, its one wave of blocks lands unevenly: long lists take a tenth longer, short ones gain nothing.
    this.#parts.kernels.get('attend').launch({ ...geometry, early: false }, ...args);
  }

  /** As `write` and `read`, for chunks of one token with short lists: pages are under way before q, k and v are there. */
  #attendToken(layer: number, q: CudaValue, k: CudaValue): CudaValue {
    const { spec, kernels, kv, workspace } = this.#parts;
    const width = spec.heads * spec.headDim;
    const out = workspace.get('attended', this.#tables.sizes.rows * width * ELEMENT_BYTES);
    const { geometry, args } = this.#attention(layer, q, out);
    kernels.get('attend_token').launch(geometry, ...args, q.headNorm, k.headNorm, spec.normEps, this.#at.ropeTable, kv.statistics);
    return value(out, width);
  }

  #attention(layer: number, q: CudaValue, out: bigint): { geometry: Geometry; args: KernelArgument[] } {
    const { spec, kv, workspace } = this.#parts;
    const { layers, heads, kvHeads, headDim } = spec;
    const { units } = this.#tables.sizes;
    const splits = this.splits;
    const pad = headPad(headDim);
    const partials = workspace.get('partials', splits === 1 ? 1 : units * kvHeads * splits * 64 * (pad + 4) * 4);
    const counters = workspace.get('counters', units * kvHeads * 4, { cleared: true });
    return {
      geometry: { grid: [splits, kvHeads, units], block: [ATTEND_THREADS], shared: attendShared(pad, kv.format) },
      args: [
        q.address, q.stride, out, kv.keys, kv.values, ...this.#pageRows(layer), this.#table('units'), this.#table('chunks'), this.#table('lists'),
        this.#at.entries, this.#positionsOf(layer), this.#table('classOf'), this.#at.selection, this.#parts.maxPick(), partials, counters,
        layer, layers, kvHeads, heads / kvHeads, spec.slidingWindow[layer] ?? 0, 1 / Math.sqrt(headDim),
      ],
    };
  }

  #attendHopper(layer: number, q: CudaValue, out: bigint): void {
    const { spec, kernels, kv } = this.#parts;
    const { layers, heads, kvHeads, headDim } = spec;
    if (kv.wide !== null) this.#widen(layer, kv.wide);
    const pages = kv.wide === null ? [kv.keys, kv.values, ...this.#pageRows(layer)] : [kv.wide.keys, kv.wide.values, kv.wide.rows, kvHeads];
    kernels.get('attend_hopper').launch(
      { grid: [this.#tables.sizes.hopperUnits, kvHeads], block: [HOPPER_THREADS], shared: HOPPER_SHARED[headPad(headDim)]! },
      q.address, q.stride, out, ...pages, this.#table('hopperUnits'), this.#table('chunks'), this.#table('lists'),
      this.#at.entries, this.#positionsOf(layer), this.#table('classOf'), this.#at.selection, this.#parts.maxPick(),
      layer, layers, kvHeads, heads / kvHeads, spec.slidingWindow[layer] ?? 0, 1 / Math.sqrt(headDim));
  }

  /** The pages that Hopper's attention reads in this run, in 16 bits. */
  #widen(layer: number, { keys, values, rows, pages }: WidePages): void {
    const { spec, kernels, kv } = this.#parts;
    const { first, count } = this.#tables.hopperPages;
    if (count > pages) throw new RangeError(`a run reads ${count} pages in 16 bits, there is room for ${pages}`);
    kernels.get('widen_pages').launch(
      { grid: [count, spec.kvHeads], block: [ATTEND_THREADS] },
      kv.keys, kv.values, ...this.#pageRows(layer), this.#at.entries + BigInt(4 * first), keys, values, rows, spec.kvHeads);
  }

  /** Parts that a list is cut into, so that few lists keep the device busy too. */
  get splits(): number {
    const { units, rows } = this.#tables.sizes;
    const { spec: { kvHeads, headDim }, kv: { format }, multiprocessors, sharedBytes } = this.#parts;
    if (units === 0) return 1;
    const fitting = Math.floor(sharedBytes / attendShared(headPad(headDim), format));
    const wanted = Math.min(MOST_SPLITS, Math.floor(Math.max(1, Math.min(BLOCKS_PER_MULTIPROCESSOR[format], fitting)) * multiprocessors / (units * kvHeads)));
    const useful = Math.ceil(2 ** Math.ceil(Math.log2(Math.max(1, this.#tables.longestList + rows / 64))) / LEAST_PAGES_PER_SPLIT);
    return Math.max(1, Math.min(wanted, useful));
  }

  /** Which rows the layer's heads have in each page, and how far apart those of two pages are noted. */
  #pageRows(layer: number): [rows: bigint, heads: number] {
    const { spec, kv } = this.#parts;
    return [kv.pageRows.address(layer * spec.kvHeads), kv.pageRows.heads];
  }

  #positionsOf(layer: number): bigint {
    return (this.#parts.spec.slidingWindow[layer] ?? null) === null ? 0n : this.#at.entryPositions;
  }

  #table(name: keyof RunTables['offsets']): bigint {
    return this.#at.block + BigInt(this.#tables.offsets[name]);
  }
}

/** ATTEND_SHARED of kernels/attend.cu: stages, and behind those of 8 bits a page that is widened. */
function attendShared(pad: number, format: KvFormat): number {
  if (format === 'element') return (pad === 256 ? 2 : 3) * 4 * 64 * pad;
  return Math.max(LEAST_ATTEND_SHARED, 2 * 2 * 64 * (pad + 4) + 4 * 64 * pad);
}

/** Scores of a list lie this far apart: a power of two, so that a recorded run serves a growing text. */
export function scoreStride(maxCandidates: number): number {
  return Math.max(64, 2 ** Math.ceil(Math.log2(Math.max(1, maxCandidates))));
}
