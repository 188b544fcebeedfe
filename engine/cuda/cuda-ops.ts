/**
 * Ops that issue kernels and products on the device's stream, for one run. What the decoder asks for one by one
 * and a kernel does at once is remembered in the value: norms and turns of q and k happen in `attend`. The stream
 * of the residual is float32, all else the element type. Knows no sequences. Made by cuda-engine.ts for each run.
 */
import type { Ops, WeightName } from '../model/ops.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceWeights, LinearWeight } from './device-weights.ts';
import type { Kernels } from './kernels.ts';
import type { LinearLayers } from './linear-layers.ts';
import { headPad, type KvFormat, type KvMemory } from './kv-memory.ts';
import type { ElementType } from './matrix-products.ts';
import type { RunTables } from './run-tables.ts';
import type { Workspace } from './workspace.ts';

/** What some activations are stored multiplied by. */
export interface ActivationFactors {
  /** The gated inputs of down projections. */
  readonly gated: number;
  /** What is added to the residual. */
  readonly delta: number;
}

/** What outlives a run. */
export interface OpsParts {
  readonly spec: ModelSpec;
  readonly factors: ActivationFactors;
  readonly kernels: Kernels;
  readonly weights: DeviceWeights;
  readonly linears: LinearLayers;
  readonly kv: KvMemory;
  readonly workspace: Workspace;
  /** Of the selection memory. */
  readonly maxPick: () => number;
  readonly multiprocessors: number;
  /** Of one block at most. */
  readonly sharedBytes: number;
}

/** Addresses of a run's tables on the device. */
export interface RunAddresses {
  readonly block: bigint;
  readonly entries: bigint;
  /** 0n without windows. */
  readonly entryPositions: bigint;
  readonly selection: bigint;
  /** [rows, pairs, 2] float32 */
  readonly ropeTable: bigint;
}

/** Rows of an activation. */
export interface CudaValue {
  readonly address: bigint;
  /** Elements from row to row. */
  readonly stride: number;
  /** 'selected': the rows of the table outputRows, not gathered yet. */
  readonly rows: 'all' | 'selected';
  /** Weight of a norm over each head, still to be done; 0n for none. */
  readonly headNorm: bigint;
  readonly turned: boolean;
  /** What its numbers are multiplied by. */
  readonly factor: number;
  /** Gate and up projections that are still to be computed, together with what gates them; null else. */
  readonly ungated: { readonly x: bigint; readonly weight: LinearWeight } | null;
}

/** fp16 ends at 65504, and models have activations of some thousands in the places where these factors are: 16 times as much then fits. */
export const activationFactors: Readonly<Record<ElementType, ActivationFactors>> = { bf16: { gated: 1, delta: 1 }, fp16: { gated: 1 / 16, delta: 1 / 16 } };

const ELEMENT_BYTES = 2;
const ROW_THREADS = 256;
const SILU_SPAN = 2048;
const ATTEND_THREADS = 128;
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
/** A part of a list with fewer pages costs more to join than it saves. */
const LEAST_PAGES_PER_SPLIT = 2;
const PAGES_PER_SCORE_BLOCK = 16;
/** ATTEND_HOPPER_SHARED of kernels/attend_hopper.cu for its two widths of heads. */
const HOPPER_SHARED: Readonly<Record<number, number>> = { 64: 5 * 32768 + 160 + 1024, 128: 3 * 65536 + 96 + 1024 };

export class CudaOps implements Ops<CudaValue> {
  readonly #parts: OpsParts;
  readonly #tables: RunTables;
  readonly #at: RunAddresses;

  constructor(parts: OpsParts, tables: RunTables, addresses: RunAddresses) {
    this.#parts = parts;
    this.#tables = tables;
    this.#at = addresses;
  }

  /** Bytes of the activations of so many rows: what cuda-engine.ts leaves free beside KV memory. */
  static activationBytes({ hidden, inner, heads, kvHeads, headDim }: ModelSpec, rows: number): number {
    const perRow = 4 * hidden + ELEMENT_BYTES * (2 * hidden + (2 * heads + 2 * kvHeads) * headDim + 3 * inner) + 4 * headDim;
    return rows * perRow;
  }

  embed(table: WeightName): CudaValue {
    const { hidden } = this.#parts.spec;
    const out = this.#parts.workspace.get('residual', this.#rows * hidden * 4);
    const { weight, scale } = this.#parts.weights.linear([table]);
    this.#parts.kernels.get('embed').launch({ grid: [this.#rows], block: [ROW_THREADS] }, weight, this.#table('tokens'), out, hidden, scale);
    return value(out, hidden);
  }

  rmsNorm(x: CudaValue, weight: WeightName): CudaValue {
    const { hidden, normEps } = this.#parts.spec;
    const out = this.#normed();
    this.#parts.kernels.get('rms_norm').launch({ grid: [this.#rows], block: [ROW_THREADS] }, x.address, this.#parts.weights.vector(weight), out, hidden, normEps);
    return value(out, hidden);
  }

  /** The sum takes the place of x; selected rows leave x as it is, and have no sum. */
  addNorm(x: CudaValue, delta: CudaValue, weight: WeightName): { sum: CudaValue; normed: CudaValue } {
    const { hidden, normEps } = this.#parts.spec;
    const selected = x.rows === 'selected';
    const rows = selected ? this.#tables.sizes.outputRows : this.#rows;
    const out = this.#normed();
    if (rows > 0) {
      this.#parts.kernels.get('add_norm').launch(
        { grid: [rows], block: [ROW_THREADS] },
        x.address, delta.address, this.#parts.weights.vector(weight), out, selected ? this.#table('outputRows') : 0n, hidden, normEps, 1 / delta.factor);
    }
    return { sum: x, normed: { ...value(out, hidden), rows: x.rows } };
  }

  /** One whose result is added to the residual. */
  linear(x: CudaValue, layer: WeightName): CudaValue {
    const weight = this.#parts.weights.linear([layer]);
    const { delta } = this.#parts.factors;
    const y = this.#parts.workspace.get('delta', this.#rows * weight.columns * ELEMENT_BYTES);
    this.#parts.linears.apply({ x: x.address, rows: this.#rows, weight, y, factor: delta / x.factor });
    return { ...value(y, weight.columns), factor: delta };
  }

  /** Views of one matrix of outputs, side by side. */
  linears(x: CudaValue, layers: readonly WeightName[]): CudaValue[] {
    const weight = this.#parts.weights.linear(layers);
    const { columns } = weight;
    if (layers.length === 2 && this.#parts.linears.canGate(weight, this.#rows)) {
      const pending = { ...value(0n, columns), ungated: { x: x.address, weight } };
      return [pending, pending];
    }
    const name = ['', '', 'gate and up', 'queries, keys and values'][layers.length];
    if (name === undefined || name === '') throw new RangeError(`${layers.length} linear layers of one input have no buffer`);
    const y = this.#parts.workspace.get(name, this.#rows * columns * ELEMENT_BYTES);
    this.#parts.linears.apply({ x: x.address, rows: this.#rows, weight, y, factor: 1 });
    let offset = 0;
    return layers.map((layer) => {
      const view = value(y + BigInt(offset * ELEMENT_BYTES), columns);
      offset += this.#widthOf(layer);
      return view;
    });
  }

  headNorm(x: CudaValue, weight: WeightName): CudaValue {
    return { ...x, headNorm: this.#parts.weights.vector(weight) };
  }

  rope(x: CudaValue): CudaValue {
    return { ...x, turned: true };
  }

  attend(layer: number, q: CudaValue, k: CudaValue, v: CudaValue): CudaValue {
    this.#checkLayout(q, k, v);
    this.write(layer, q, k);
    if (this.#tables.sizes.scoreUnits > 0) this.select(layer, q);
    return this.read(layer, q);
  }

  siluMul(gate: CudaValue, up: CudaValue): CudaValue {
    const { inner } = this.#parts.spec;
    const factor = this.#parts.factors.gated;
    const out = this.#parts.workspace.get('gated', this.#rows * inner * ELEMENT_BYTES);
    if (gate.ungated !== null) {
      this.#parts.linears.gated({ ...gate.ungated, rows: this.#rows, y: out, factor });
      return { ...value(out, inner), factor };
    }
    if (up.address - gate.address !== BigInt(inner * ELEMENT_BYTES) || gate.stride !== 2 * inner) throw new RangeError('gate and up are to be one product');
    this.#parts.kernels.get('silu_mul').launch({ grid: [this.#rows, Math.ceil(inner / SILU_SPAN)], block: [ROW_THREADS] }, gate.address, out, inner, factor);
    return { ...value(out, inner), factor };
  }

  selectRows(x: CudaValue): CudaValue {
    return { ...x, rows: 'selected' };
  }

  /** -> [outputRows, padded vocabulary] float32 in the workspace 'logits'. */
  logits(x: CudaValue, layer: WeightName): CudaValue {
    const weight = this.#parts.weights.linear([layer]);
    const rows = this.#tables.sizes.outputRows;
    const y = this.#parts.workspace.get('logits', rows * weight.columns * 4);
    this.#parts.linears.apply({ x: x.address, rows, weight, y, factor: 1 }, 'float32');
    return value(y, weight.columns);
  }

  get #rows(): number {
    return this.#tables.sizes.rows;
  }

  #normed(): bigint {
    return this.#parts.workspace.get('normed', Math.max(this.#rows, this.#tables.sizes.outputRows) * this.#parts.spec.hidden * ELEMENT_BYTES);
  }

  #table(name: keyof RunTables['offsets']): bigint {
    return this.#at.block + BigInt(this.#tables.offsets[name]);
  }

  #widthOf(layer: WeightName): number {
    const { heads, kvHeads, headDim, inner, hidden } = this.#parts.spec;
    if (layer.endsWith('q_proj')) return heads * headDim;
    if (/[kv]_proj$/.test(layer)) return kvHeads * headDim;
    return /(gate|up)_proj$/.test(layer) ? inner : hidden;
  }

  #checkLayout(q: CudaValue, k: CudaValue, v: CudaValue): void {
    const { heads, kvHeads, headDim } = this.#parts.spec;
    const isOneProduct = k.address - q.address === BigInt(heads * headDim * ELEMENT_BYTES) && v.address - k.address === BigInt(kvHeads * headDim * ELEMENT_BYTES);
    if (!isOneProduct || !q.turned || !k.turned) throw new RangeError('queries, keys and values are to be one product, queries and keys turned');
  }

  /** Norms and turns q and k, writes k and v to their pages. Public, as the next two, for benchmarks of one part. */
  write(layer: number, q: CudaValue, k: CudaValue): void {
    const { spec, kernels, kv } = this.#parts;
    kernels.get('rope_write').launch(
      { grid: [this.#tables.sizes.writes, spec.kvHeads], block: [ATTEND_THREADS] },
      q.address, q.stride, 0n, q.headNorm, k.headNorm, spec.normEps, this.#at.ropeTable, this.#table('writes'),
      kv.keys(layer), kv.values(layer), kv.statistics(layer), spec.kvHeads, spec.heads / spec.kvHeads);
  }

  /** Scores candidates and picks. */
  select(layer: number, q: CudaValue): void {
    const { spec, kernels, kv, workspace, multiprocessors } = this.#parts;
    const { layers, heads, kvHeads } = spec;
    const { sizes, maxCandidates } = this.#tables;
    const stride = scoreStride(maxCandidates);
    const scores = workspace.get('scores', sizes.scoreUnits * heads * stride * 4);
    const ofPrefill = sizes.hopperScoreUnits;
    const ofDecode = sizes.scoreUnits - ofPrefill;
    const launch = (name: 'score' | 'score_hopper', first: number, count: number, block: number, pagesPerBlock: number, perDevice: number, shared: number): void => {
      if (count === 0) return;
      const blocks = Math.max(1, Math.min(Math.ceil(stride / pagesPerBlock), Math.floor(perDevice * multiprocessors / (kvHeads * count))));
      kernels.get(name).launch(
        { grid: [blocks, kvHeads, count], block: [block], shared },
        q.address, q.stride, kv.statistics(layer), this.#table('scoreUnits') + BigInt(4 * first), this.#table('chunks'), this.#table('lists'), this.#at.entries,
        this.#table('classOf'), scores + BigInt(first * heads * stride * 4), stride, layer, kvHeads, heads / kvHeads);
    };
    launch('score', 0, ofDecode, ATTEND_THREADS, PAGES_PER_SCORE_BLOCK, SCORE_BLOCKS_PER_MULTIPROCESSOR, 0);
    launch('score_hopper', ofDecode, ofPrefill, ROW_THREADS, 2 * PAGES_PER_SCORE_BLOCK, 1, spec.headDim * 1024 + 1024);
    kernels.get('pick').launch(
      { grid: [heads, sizes.scoreUnits], block: [ROW_THREADS] },
      scores, stride, this.#table('scoreUnits'), this.#table('chunks'), this.#table('lists'), this.#at.entries, this.#table('classOf'),
      this.#at.selection, this.#parts.maxPick(), layer, layers, kvHeads, heads / kvHeads);
  }

  /** Attention over the lists and the chunks' own tokens. */
  read(layer: number, q: CudaValue): CudaValue {
    const { spec, workspace } = this.#parts;
    const width = spec.heads * spec.headDim;
    const out = workspace.get('attended', this.#rows * width * ELEMENT_BYTES);
    if (this.#tables.sizes.units > 0) this.#attend(layer, q, out);
    if (this.#tables.sizes.hopperUnits > 0) this.#attendHopper(layer, q, out);
    return value(out, width);
  }

  #attend(layer: number, q: CudaValue, out: bigint): void {
    const { spec, kernels, kv, workspace } = this.#parts;
    const { layers, heads, kvHeads, headDim } = spec;
    const { units } = this.#tables.sizes;
    const splits = this.splits;
    const pad = headPad(headDim);
    const partials = workspace.get('partials', splits === 1 ? 1 : units * kvHeads * splits * 64 * (pad + 4) * 4);
    const counters = workspace.get('counters', units * kvHeads * 4, { cleared: true });
    kernels.get('attend').launch(
      // Begun early, its one wave of blocks lands unevenly: long lists take a tenth longer, short ones gain nothing.
      { grid: [splits, kvHeads, units], block: [ATTEND_THREADS], shared: attendShared(pad, kv.format), early: false },
      q.address, q.stride, out, kv.keys(layer), kv.values(layer), this.#table('units'), this.#table('chunks'), this.#table('lists'),
      this.#at.entries, this.#positionsOf(layer), this.#table('classOf'), this.#at.selection, this.#parts.maxPick(), partials, counters,
      layer, layers, kvHeads, heads / kvHeads, spec.slidingWindow[layer] ?? 0, 1 / Math.sqrt(headDim));
  }

  #attendHopper(layer: number, q: CudaValue, out: bigint): void {
    const { spec, kernels, kv } = this.#parts;
    const { layers, heads, kvHeads, headDim } = spec;
    if (kv.wide !== null) this.#widen(layer, kv.wide);
    kernels.get('attend_hopper').launch(
      { grid: [this.#tables.sizes.hopperUnits, kvHeads], block: [HOPPER_THREADS], shared: HOPPER_SHARED[headPad(headDim)]! },
      q.address, q.stride, out, kv.wide?.keys ?? kv.keys(layer), kv.wide?.values ?? kv.values(layer), this.#table('hopperUnits'), this.#table('chunks'), this.#table('lists'),
      this.#at.entries, this.#positionsOf(layer), this.#table('classOf'), this.#at.selection, this.#parts.maxPick(),
      layer, layers, kvHeads, heads / kvHeads, spec.slidingWindow[layer] ?? 0, 1 / Math.sqrt(headDim));
  }

  /** The pages that Hopper's attention reads in this run, in 16 bits. */
  #widen(layer: number, { keys, values }: { keys: bigint; values: bigint }): void {
    const { spec, kernels, kv } = this.#parts;
    const { first, count } = this.#tables.hopperPages;
    kernels.get('widen_pages').launch(
      { grid: [count, spec.kvHeads], block: [ATTEND_THREADS] },
      kv.keys(layer), kv.values(layer), keys, values, this.#at.entries + BigInt(4 * first), spec.kvHeads);
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

  #positionsOf(layer: number): bigint {
    return (this.#parts.spec.slidingWindow[layer] ?? null) === null ? 0n : this.#at.entryPositions;
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

function value(address: bigint, stride: number): CudaValue {
  return { address, stride, rows: 'all', headNorm: 0n, turned: false, factor: 1, ungated: null };
}
