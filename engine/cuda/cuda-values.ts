/**
 * What the parts of a run of the CUDA engine hand to each other: activations as addresses with what is still to be done to
 * them, the tables' addresses, and what outlives a run. Knows no kernels. Used by cuda-ops.ts and attention-launches.ts.
 */
import type { ModelSpec } from '../model/spec.ts';
import type { DeviceWeights, LinearWeight } from './device-weights.ts';
import type { Kernels } from './kernels.ts';
import type { KvMemory } from './kv-memory.ts';
import type { LinearInput } from './linear-call.ts';
import type { LinearLayers } from './linear-layers.ts';
import type { ElementType } from './matrix-products.ts';
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
  /** Whether kernels that do several things at once are used. */
  readonly fast: boolean;
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
  /** Weight of a norm over the row, still to be done: the rows are those of the residual; 0n for none. */
  readonly norm: bigint;
  /** The linear layer that gives these rows, still to be computed: together with what gates it or with the residual sum. */
  readonly pending: { readonly x: LinearInput; readonly weight: LinearWeight } | null;
}

/** fp16 ends at 65504, and models have activations of some thousands in the places where these factors are: 16 times as much then fits. */
export const activationFactors: Readonly<Record<ElementType, ActivationFactors>> = { bf16: { gated: 1, delta: 1 }, fp16: { gated: 1 / 16, delta: 1 / 16 } };

/** Rows of which nothing is left to be done. */
export function value(address: bigint, stride: number): CudaValue {
  return { address, stride, rows: 'all', headNorm: 0n, turned: false, factor: 1, norm: 0n, pending: null };
}
