/** What a linear layer is asked for, whichever way it is computed. Used by linear-layers.ts and the ways that it knows. */
import type { LinearWeight } from './device-weights.ts';

/** Rows that a linear layer reads. */
export interface LinearInput {
  /** [rows, inner] of the element type; where a norm is still to be done the rows of the residual, float32. */
  readonly address: bigint;
  /** The norm's weight; 0n where nothing is to be done. */
  readonly norm: bigint;
}

export interface LinearCall {
  readonly x: LinearInput;
  readonly rows: number;
  readonly weight: LinearWeight;
  /** [rows, columns], or of gated layers [rows, columns / 2] */
  readonly y: bigint;
  /** What the result is multiplied by, beside the weight's own scale; a bias is not. */
  readonly factor: number;
}

/** 'added': y is the residual, float32, and the result is added to it. */
export type LinearOutput = 'element' | 'float32' | 'added';

export const ELEMENT_BYTES = 2;
/** Kernels that read weights themselves take whole 16-byte accesses of four lanes. */
export const INNER_UNIT = { element: 32, fp8: 64 } as const;
