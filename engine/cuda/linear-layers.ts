/**
 * Linear layers by the way that suits the number of rows: few rows (decode) through a kernel that reads the weights
 * at the speed of memory, many through the library's products. fp8 weights go the first way as they are; for many
 * rows a matrix is widened first. Knows no decoder. Called by cuda-ops.ts.
 */
import type { LinearWeight } from './device-weights.ts';
import type { KernelName, Kernels } from './kernels.ts';
import type { MatrixProducts } from './matrix-products.ts';
import type { Workspace } from './workspace.ts';

export interface LinearCall {
  /** [rows, inner] */
  readonly x: bigint;
  readonly rows: number;
  readonly weight: LinearWeight;
  /** [rows, columns], or of gated layers [rows, columns / 2] */
  readonly y: bigint;
  /** What the result is multiplied by, beside the weight's own scale; a bias is not. */
  readonly factor: number;
}

const THREADS = 256;
const OUTPUTS_PER_BLOCK = 16;
const ELEMENT_BYTES = 2;
/** Rows of one launch of the kernel for few rows: 16-bit weights take the first number only. */
const FEW = [8, 16] as const;
/** Weights in 16 bits: for more rows the library's products are as fast. */
const MOST_FEW = 8;
/** fp8 weights: as many launches as read no more than widening them would. */
const MOST_FEW_FP8 = 48;
/** The kernel takes whole 16-byte accesses of four lanes. */
const INNER_UNIT = { element: 32, fp8: 64 } as const;

export class LinearLayers {
  readonly #takesFew: boolean;
  readonly #kernels: Kernels;
  readonly #products: MatrixProducts;
  readonly #workspace: Workspace;

  /** `few`: whether the kernel for few rows takes weights in 16 bits; those in fp8 it always does. */
  constructor({ kernels, products, workspace, few }: { kernels: Kernels; products: MatrixProducts; workspace: Workspace; few: boolean }) {
    this.#takesFew = few;
    this.#kernels = kernels;
    this.#products = products;
    this.#workspace = workspace;
  }

  /** y = factor x W^T (+ bias). */
  apply(call: LinearCall, output: 'element' | 'float32' = 'element'): void {
    const { weight, rows } = call;
    if (rows === 0) return;
    if (!this.#suitsFew(weight, rows)) {
      this.#multiply(call, output);
      return;
    }
    const { columns, inner } = weight;
    const outputBytes = output === 'element' ? ELEMENT_BYTES : 4;
    this.#eachFew(call, 'linear', { grid: Math.ceil(columns / OUTPUTS_PER_BLOCK), yBytes: columns * outputBytes }, (kernel, grid, x, y, count) => {
      const [out, logits] = output === 'element' ? [y, 0n] : [0n, y];
      this.#kernels.get(kernel).launch({ grid: [grid], block: [THREADS] }, x, weight.weight, weight.scales ?? 0n, out, logits, count, inner, columns, weight.scale * call.factor);
    });
  }

  /** Whether `gated` can be asked for so many rows. */
  canGate(weight: LinearWeight, rows: number): boolean {
    return rows > 0 && this.#suitsFew(weight, rows);
  }

  /** y = factor silu(x G^T) * (x U^T) of a matrix that holds the rows of G, then those of U. */
  gated(call: LinearCall): void {
    const { weight } = call;
    const half = weight.columns / 2;
    this.#eachFew(call, 'gated', { grid: Math.ceil(half / (OUTPUTS_PER_BLOCK / 2)), yBytes: half * ELEMENT_BYTES }, (kernel, grid, x, y, count) => {
      this.#kernels.get(kernel).launch({ grid: [grid], block: [THREADS] }, x, weight.weight, weight.scales ?? 0n, y, count, weight.inner, half, weight.scale, call.factor);
    });
  }

  #suitsFew({ bias, inner, scales }: LinearWeight, rows: number): boolean {
    const [most, unit] = scales === null ? [MOST_FEW, INNER_UNIT.element] : [MOST_FEW_FP8, INNER_UNIT.fp8];
    return (this.#takesFew || scales !== null) && bias === null && rows <= most && inner % unit === 0;
  }

  #eachFew(
    { x, y, rows, weight }: LinearCall, name: 'linear' | 'gated', { grid, yBytes }: { grid: number; yBytes: number },
    launch: (kernel: KernelName, grid: number, x: bigint, y: bigint, count: number) => void,
  ): void {
    for (let first = 0; first < rows; first += FEW[1]) {
      const count = Math.min(FEW[1], rows - first);
      const tiles = count <= FEW[0] ? FEW[0] : FEW[1];
      const kernel: KernelName = weight.scales === null ? `${name}_8` : `${name}_${tiles}_fp8`;
      launch(kernel, grid, x + BigInt(first * weight.inner * ELEMENT_BYTES), y + BigInt(first * yBytes), count);
    }
  }

  #multiply({ x, rows, weight, y, factor }: LinearCall, output: 'element' | 'float32'): void {
    const { columns, inner, bias } = weight;
    this.#products.multiply({ x, rows, weight: this.#widened(weight), columns, inner, bias, y, output, scale: weight.scale * factor });
  }

  #widened({ weight, scales, columns, inner }: LinearWeight): bigint {
    if (scales === null) return weight;
    const wide = this.#workspace.get('widened weights', columns * inner * ELEMENT_BYTES);
    this.#kernels.get('dequantize_rows').launch({ grid: [columns], block: [THREADS] }, weight, scales, wide, inner);
    return wide;
  }
}
