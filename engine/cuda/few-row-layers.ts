/**
 * Linear layers of few rows by kernels that read the weights at the speed of memory: `linear_stream`, whose blocks stay and
 * which may do a layer's norms and residual sums too, and `linear_few`, for more rows and for kernels in the plain way. fp8
 * weights are read as they are. Called by linear-layers.ts.
 */
import type { LinearWeight } from './device-weights.ts';
import type { Geometry } from './kernel.ts';
import type { KernelName, Kernels } from './kernels.ts';
import { ELEMENT_BYTES, INNER_UNIT, type LinearCall, type LinearOutput } from './linear-call.ts';

export interface FewRowOptions {
  readonly kernels: Kernels;
  /** Whether weights in 16 bits are taken, and blocks stay; fp8 weights are taken by `linear_few` else. */
  readonly fast: boolean;
  readonly multiprocessors: number;
  readonly normEps: number;
}

const THREADS = 256;
const OUTPUTS_PER_BLOCK = 16;
/** Rows of one launch: 16-bit weights take the first number only. */
const ROWS = [8, 16] as const;
/** Weights in 16 bits: for more rows the library's products are as fast. */
const MOST = 8;
/** fp8 weights: as many launches as read no more than widening them would. */
const MOST_FP8 = 48;
/** linear_stream: blocks of a multiprocessor, what each may have of its shared memory, and what lies between two rows of x there. */
const STREAM_BLOCKS = 2;
const MOST_STREAM_SHARED = 96 << 10;
const STREAM_ROW_PAD = { element: 32, fp8: 8 } as const;
/** For more rows of fp8 weights linear_few is as fast. */
const MOST_STREAM_FP8 = 4;
/** For more rows norms in each block cost more than in a kernel of their own. */
const MOST_FUSED = 2;

export class FewRowLayers {
  readonly #kernels: Kernels;
  readonly #fast: boolean;
  readonly #multiprocessors: number;
  readonly #normEps: number;

  constructor({ kernels, fast, multiprocessors, normEps }: FewRowOptions) {
    this.#kernels = kernels;
    this.#fast = fast;
    this.#multiprocessors = multiprocessors;
    this.#normEps = normEps;
  }

  suits({ bias, inner, scales }: LinearWeight, rows: number): boolean {
    const [most, unit] = scales === null ? [MOST, INNER_UNIT.element] : [MOST_FP8, INNER_UNIT.fp8];
    return (this.#fast || scales !== null) && bias === null && rows <= most && inner % unit === 0;
  }

  /** Whether x may have a norm still to be done, and the result may be added to the residual. */
  canFuse(weight: LinearWeight, rows: number): boolean {
    return rows <= MOST_FUSED && this.#streams(weight, rows);
  }

  apply(call: LinearCall, output: LinearOutput): void {
    if (this.#streams(call.weight, call.rows)) {
      this.#stream(call, output);
      return;
    }
    if (output === 'added') throw new RangeError('sums are added by layers that can fuse');
    const { weight: { columns, inner, weight, scales, scale }, factor } = call;
    const outputBytes = output === 'element' ? ELEMENT_BYTES : 4;
    this.#eachFew(call, 'linear', { grid: Math.ceil(columns / OUTPUTS_PER_BLOCK), yBytes: columns * outputBytes }, (kernel, grid, x, y, count) => {
      const [out, logits] = output === 'element' ? [y, 0n] : [0n, y];
      this.#kernels.get(kernel).launch({ grid: [grid], block: [THREADS] }, x, weight, scales ?? 0n, out, logits, count, inner, columns, scale * factor);
    });
  }

  /** y = factor silu(x G^T) * (x U^T) */
  gated(call: LinearCall): void {
    const { x, rows, y, factor, weight: { columns, inner, weight, scales, scale } } = call;
    const [half, grid] = [columns / 2, Math.ceil(columns / OUTPUTS_PER_BLOCK)];
    if (this.#streams(call.weight, rows)) {
      this.#kernels.get(streamKernel('gated', call)).launch(
        this.#streamGeometry(call, grid), x.address, x.norm, weight, scales ?? 0n, y, rows, inner, half, scale, factor, this.#normEps);
      return;
    }
    this.#eachFew(call, 'gated', { grid, yBytes: half * ELEMENT_BYTES }, (kernel, blocks, from, to, count) => {
      this.#kernels.get(kernel).launch({ grid: [blocks], block: [THREADS] }, from, weight, scales ?? 0n, to, count, inner, half, scale, factor);
    });
  }

  #stream(call: LinearCall, output: LinearOutput): void {
    const { x, rows, y, factor, weight: { columns, inner, weight, scales, scale } } = call;
    const [out, sums] = output === 'element' ? [y, 0n] : [0n, y];
    this.#kernels.get(streamKernel('linear', call)).launch(
      this.#streamGeometry(call, Math.ceil(columns / OUTPUTS_PER_BLOCK)),
      x.address, x.norm, weight, scales ?? 0n, out, sums, output === 'added' ? 1 : 0, rows, inner, columns, scale * factor, this.#normEps);
  }

  #streamGeometry({ weight, rows }: LinearCall, tiles: number): Geometry {
    return { grid: [Math.min(tiles, STREAM_BLOCKS * this.#multiprocessors)], block: [THREADS], shared: streamShared(weight, rows) };
  }

  #streams(weight: LinearWeight, rows: number): boolean {
    const most = weight.scales === null ? MOST : MOST_STREAM_FP8;
    return this.#fast && rows <= most && this.suits(weight, rows) && streamShared(weight, rows) <= MOST_STREAM_SHARED;
  }

  #eachFew(
    { x, y, rows, weight }: LinearCall, name: 'linear' | 'gated', { grid, yBytes }: { grid: number; yBytes: number },
    launch: (kernel: KernelName, grid: number, x: bigint, y: bigint, count: number) => void,
  ): void {
    if (x.norm !== 0n) throw new RangeError('norms are done by layers that can fuse');
    for (let first = 0; first < rows; first += ROWS[1]) {
      const count = Math.min(ROWS[1], rows - first);
      const most = count <= ROWS[0] ? ROWS[0] : ROWS[1];
      const kernel: KernelName = weight.scales === null ? `${name}_8` : `${name}_${most}_fp8`;
      launch(kernel, grid, x.address + BigInt(first * weight.inner * ELEMENT_BYTES), y + BigInt(first * yBytes), count);
    }
  }
}

function streamKernel(name: 'linear' | 'gated', { weight }: LinearCall): KernelName {
  return weight.scales === null ? `${name}_stream` : `${name}_stream_fp8`;
}

function streamShared({ inner, scales }: LinearWeight, rows: number): number {
  return rows * (inner + (scales === null ? STREAM_ROW_PAD.element : STREAM_ROW_PAD.fp8)) * ELEMENT_BYTES;
}
