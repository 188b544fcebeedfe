/**
 * Linear layers with fp8 weights for 17 to 64 rows by `linear_fp8`, on Hopper: weights are read once and as they are. Called
 * by linear-layers.ts.
 */
import type { LinearWeight } from './device-weights.ts';
import type { Geometry } from './kernel.ts';
import type { KernelName, Kernels } from './kernels.ts';
import { INNER_UNIT, type LinearCall } from './linear-call.ts';
import type { Workspace } from './workspace.ts';

const THREADS = 512;
const OUTPUTS = 256;
/** For fewer rows linear_few reads weights no more often. */
const LEAST_ROWS = 17;
const ROWS = [32, 64] as const;
/** Joining more parts of a product costs more than idle multiprocessors. */
const MOST_PARTS = 4;
/** Stages of four tiles of 64 channels. */
const STAGE_BYTES_OF_ROW = 3 * 4 * 128;
const SHARED_ALIGNMENT = 1024;

interface Plan {
  readonly kernel: KernelName;
  readonly geometry: Geometry;
  readonly partials: bigint;
  readonly counters: bigint;
}

export class Fp8Products {
  readonly #kernels: Kernels;
  readonly #workspace: Workspace;
  readonly #multiprocessors: number;

  constructor({ kernels, workspace, multiprocessors }: { kernels: Kernels; workspace: Workspace; multiprocessors: number }) {
    this.#kernels = kernels;
    this.#workspace = workspace;
    this.#multiprocessors = multiprocessors;
  }

  suits({ bias, inner, scales }: LinearWeight, rows: number): boolean {
    return this.#kernels.has('linear_64_fp8') && scales !== null && bias === null && rows >= LEAST_ROWS && rows <= ROWS[1] && inner % INNER_UNIT.fp8 === 0;
  }

  /** y of the element type. */
  apply({ x, rows, y, factor, weight: { columns, inner, weight, scales, scale } }: LinearCall): void {
    const { kernel, geometry, partials, counters } = this.#plan('linear', Math.ceil(columns / OUTPUTS), rows);
    this.#kernels.get(kernel).launch(geometry, x.address, weight, scales!, y, partials, counters, rows, inner, columns, scale * factor);
  }

  /** y = factor silu(x G^T) * (x U^T) */
  gated({ x, rows, y, factor, weight: { columns, inner, weight, scales, scale } }: LinearCall): void {
    const { kernel, geometry, partials, counters } = this.#plan('gated', Math.ceil(columns / OUTPUTS), rows);
    this.#kernels.get(kernel).launch(geometry, x.address, weight, scales!, y, partials, counters, rows, inner, columns / 2, scale, factor);
  }

  #plan(kind: 'linear' | 'gated', tiles: number, rows: number): Plan {
    const parts = Math.max(1, Math.min(MOST_PARTS, Math.floor(this.#multiprocessors / tiles)));
    const most = rows <= ROWS[0] ? ROWS[0] : ROWS[1];
    return {
      kernel: `${kind}_${most}_fp8`,
      geometry: { grid: [tiles, parts], block: [THREADS], shared: STAGE_BYTES_OF_ROW * most + SHARED_ALIGNMENT },
      partials: this.#workspace.get('parts of products', parts === 1 ? 16 : tiles * parts * most / 2 * THREADS * 4),
      counters: this.#workspace.get('counters of products', tiles * 4, { cleared: true }),
    };
  }
}
