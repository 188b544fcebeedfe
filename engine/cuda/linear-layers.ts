/**
 * Linear layers by the way that suits the number of rows: few rows (decode) through kernels that read the weights at the
 * speed of memory, many through the library's products. fp8 weights are read as they are up to 64 rows; for more a matrix
 * is widened first. Knows no decoder. Called by cuda-ops.ts.
 */
import type { LinearWeight } from './device-weights.ts';
import { FewRowLayers } from './few-row-layers.ts';
import { Fp8Products } from './fp8-products.ts';
import type { Kernels } from './kernels.ts';
import { ELEMENT_BYTES, type LinearCall, type LinearOutput } from './linear-call.ts';
import type { MatrixProducts } from './matrix-products.ts';
import type { Workspace } from './workspace.ts';

const THREADS = 256;

export interface LinearLayersOptions {
  readonly kernels: Kernels;
  readonly products: MatrixProducts;
  readonly workspace: Workspace;
  /** Whether kernels of few rows take weights in 16 bits; those in fp8 they always do. */
  readonly fast: boolean;
  readonly multiprocessors: number;
  readonly normEps: number;
}

export class LinearLayers {
  readonly #few: FewRowLayers;
  readonly #fp8: Fp8Products;
  readonly #kernels: Kernels;
  readonly #products: MatrixProducts;
  readonly #workspace: Workspace;

  constructor(options: LinearLayersOptions) {
    this.#few = new FewRowLayers(options);
    this.#fp8 = new Fp8Products(options);
    this.#kernels = options.kernels;
    this.#products = options.products;
    this.#workspace = options.workspace;
  }

  /** y = factor x W^T (+ bias) */
  apply(call: LinearCall, output: LinearOutput = 'element'): void {
    const { weight, rows } = call;
    if (rows === 0) return;
    if (output === 'element' && this.#fp8.suits(weight, rows)) this.#fp8.apply(call);
    else if (this.#few.suits(weight, rows)) this.#few.apply(call, output);
    else this.#multiply(call, output);
  }

  /** Whether `gated` can be asked for so many rows. */
  canGate(weight: LinearWeight, rows: number): boolean {
    return rows > 0 && (this.#few.suits(weight, rows) || this.#fp8.suits(weight, rows));
  }

  /** Whether x of so many rows may have a norm still to be done, and the result may be added to the residual. */
  canFuse(weight: LinearWeight, rows: number): boolean {
    return rows > 0 && this.#few.canFuse(weight, rows);
  }

  /** y = factor silu(x G^T) * (x U^T) of a matrix that holds the rows of G, then those of U. */
  gated(call: LinearCall): void {
    if (this.#fp8.suits(call.weight, call.rows)) this.#fp8.gated(call);
    else this.#few.gated(call);
  }

  #multiply({ x, rows, weight, y, factor }: LinearCall, output: LinearOutput): void {
    if (output === 'added' || x.norm !== 0n) throw new RangeError('norms and sums in a linear layer are for layers that can fuse');
    const { columns, inner, bias } = weight;
    this.#products.multiply({ x: x.address, rows, weight: this.#widened(weight), columns, inner, bias, y, output, scale: weight.scale * factor });
  }

  #widened({ weight, scales, columns, inner }: LinearWeight): bigint {
    if (scales === null) return weight;
    const wide = this.#workspace.get('widened weights', columns * inner * ELEMENT_BYTES);
    this.#kernels.get('dequantize_rows').launch({ grid: [columns], block: [THREADS] }, weight, scales, wide, inner);
    return wide;
  }
}
