/**
 * A float64 matrix: the activation handle of the reference backend. Knows no model. Used by reference-ops.ts
 * and attention.ts.
 */

export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** Row-major. [rows * columns] */
  readonly data: Float64Array;
}

export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, data: new Float64Array(rows * columns) };
}

/** A view of one row, not a copy. [columns] */
export function row(matrix: Matrix, index: number): Float64Array {
  return matrix.data.subarray(index * matrix.columns, (index + 1) * matrix.columns);
}

/** Sum of a[i] * b[bOffset + i] over a. */
export function dot(a: Float64Array, b: Float64Array | Float32Array, bOffset = 0): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[bOffset + i]!;
  return sum;
}
