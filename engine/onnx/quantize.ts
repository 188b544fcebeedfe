/**
 * Weights as the int8 product wants them: [in, out] with one scale per output column. Knows no graph.
 * Called by linear-layers.ts while the session is built.
 */

export interface QuantizedColumns {
  /** [columnsIn, columnsOut], so that the kernel reads along the output. */
  readonly data: Int8Array;
  /** weight = data * scale. [columnsOut] */
  readonly scales: Float32Array;
}

/** Side of the square that is transposed at a time: both sides of it stay in the first-level cache. */
const TILE = 64;

/** Symmetric int8 with a scale per output channel. weight: [out, in] row-major. */
export function quantizeColumns(weight: Float32Array, out: number, inputs: number): QuantizedColumns {
  const scales = rowScales(weight, out, inputs);
  const data = new Int8Array(out * inputs);
  for (let row0 = 0; row0 < out; row0 += TILE) {
    for (let column0 = 0; column0 < inputs; column0 += TILE) {
      quantizeTile({ weight, scales, data, out, inputs }, row0, column0);
    }
  }
  return { data, scales };
}

function quantizeTile(
  { weight, scales, data, out, inputs }: { weight: Float32Array; scales: Float32Array; data: Int8Array; out: number; inputs: number },
  row0: number,
  column0: number,
): void {
  const rowEnd = Math.min(row0 + TILE, out);
  const columnEnd = Math.min(column0 + TILE, inputs);
  for (let row = row0; row < rowEnd; row++) {
    const inverse = 1 / scales[row]!;
    for (let column = column0; column < columnEnd; column++) {
      data[column * out + row] = Math.round(weight[row * inputs + column]! * inverse);
    }
  }
}

/** Largest magnitude of each row over 127; 1 for a row of zeros. [out] */
function rowScales(weight: Float32Array, out: number, inputs: number): Float32Array {
  const scales = new Float32Array(out);
  for (let row = 0; row < out; row++) {
    let largest = 0;
    for (let i = row * inputs; i < (row + 1) * inputs; i++) largest = Math.max(largest, Math.abs(weight[i]!));
    scales[row] = largest === 0 ? 1 : largest / 127;
  }
  return scales;
}
