/**
 * Ops that issue kernels and products on the device's stream, for one run. What the decoder asks for one by one
 * and a kernel does at once is remembered in the value: norms and turns of q and k happen in `attend`. The stream
 * of the residual is float32, all else the element type. Knows no sequences. Made by cuda-engine.ts for each run.
 */
import type { Ops, WeightName } from '../model/ops.ts';
import type { ModelSpec } from '../model/spec.ts';
import { AttentionLaunches } from './attention-launches.ts';
import { value, type CudaValue, type OpsParts, type RunAddresses } from './cuda-values.ts';
import type { LinearWeight } from './device-weights.ts';
import type { LinearInput } from './linear-call.ts';
import type { RunTables } from './run-tables.ts';

const ELEMENT_BYTES = 2;
const ROW_THREADS = 256;
const SILU_SPAN = 2048;

export class CudaOps implements Ops<CudaValue> {
  readonly #parts: OpsParts;
  readonly #tables: RunTables;
  readonly #at: RunAddresses;
  readonly attention: AttentionLaunches;

  constructor(parts: OpsParts, tables: RunTables, addresses: RunAddresses) {
    this.#parts = parts;
    this.#tables = tables;
    this.#at = addresses;
    this.attention = new AttentionLaunches(parts, tables, addresses);
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

  /** Done by what reads it, where that can. */
  rmsNorm(x: CudaValue, weight: WeightName): CudaValue {
    return { ...x, norm: this.#parts.weights.vector(weight) };
  }

  /** The rows, normed where that is still to be done and `weight` is not multiplied by what can do it. */
  #inputOf(x: CudaValue, weight: LinearWeight): LinearInput {
    if (x.norm === 0n || this.#parts.linears.canFuse(weight, this.#rows)) return x;
    const { hidden, normEps } = this.#parts.spec;
    const address = this.#normed();
    this.#parts.kernels.get('rms_norm').launch({ grid: [this.#rows], block: [ROW_THREADS] }, x.address, x.norm, address, hidden, normEps);
    return { address, norm: 0n };
  }

  /** The sum takes the place of x; selected rows leave x as it is, and have no sum. */
  addNorm(x: CudaValue, delta: CudaValue, weight: WeightName): { sum: CudaValue; normed: CudaValue } {
    const { hidden, normEps } = this.#parts.spec;
    const selected = x.rows === 'selected';
    if (delta.pending !== null && !selected) {
      this.#parts.linears.apply({ ...delta.pending, rows: this.#rows, y: x.address, factor: 1 / delta.factor }, 'added');
      return { sum: x, normed: this.rmsNorm(x, weight) };
    }
    const added = delta.pending === null ? delta : this.#delta(delta.pending, delta.factor);
    const rows = selected ? this.#tables.sizes.outputRows : this.#rows;
    const out = this.#normed();
    if (rows > 0) {
      this.#parts.kernels.get('add_norm').launch(
        { grid: [rows], block: [ROW_THREADS] },
        x.address, added.address, this.#parts.weights.vector(weight), out, selected ? this.#table('outputRows') : 0n, hidden, normEps, 1 / added.factor);
    }
    return { sum: x, normed: { ...value(out, hidden), rows: x.rows } };
  }

  /** One whose result is added to the residual. */
  linear(x: CudaValue, layer: WeightName): CudaValue {
    const weight = this.#parts.weights.linear([layer]);
    if (this.#parts.linears.canFuse(weight, this.#rows)) return { ...value(0n, weight.columns), factor: x.factor, pending: { x, weight } };
    return this.#delta({ x, weight }, x.factor);
  }

  /** `factor`: that of x. */
  #delta({ x, weight }: NonNullable<CudaValue['pending']>, factor: number): CudaValue {
    const { delta } = this.#parts.factors;
    const y = this.#parts.workspace.get('delta', this.#rows * weight.columns * ELEMENT_BYTES);
    this.#parts.linears.apply({ x, rows: this.#rows, weight, y, factor: delta / factor });
    return { ...value(y, weight.columns), factor: delta };
  }

  /** Views of one matrix of outputs, side by side. */
  linears(from: CudaValue, layers: readonly WeightName[]): CudaValue[] {
    const weight = this.#parts.weights.linear(layers);
    const { columns } = weight;
    const x = this.#inputOf(from, weight);
    if (layers.length === 2 && this.#parts.linears.canGate(weight, this.#rows)) {
      const ungated = { ...value(0n, columns), pending: { x, weight } };
      return [ungated, ungated];
    }
    const name = ['', '', 'gate and up', 'queries, keys and values'][layers.length];
    if (name === undefined || name === '') throw new RangeError(`${layers.length} linear layers of one input have no buffer`);
    const y = this.#parts.workspace.get(name, this.#rows * columns * ELEMENT_BYTES);
    this.#parts.linears.apply({ x, rows: this.#rows, weight, y, factor: 1 });
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
    return this.attention.attend(layer, q, k);
  }

  siluMul(gate: CudaValue, up: CudaValue): CudaValue {
    const { inner } = this.#parts.spec;
    const factor = this.#parts.factors.gated;
    const out = this.#parts.workspace.get('gated', this.#rows * inner * ELEMENT_BYTES);
    if (gate.pending !== null) {
      this.#parts.linears.gated({ ...gate.pending, rows: this.#rows, y: out, factor });
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
    this.#parts.linears.apply({ x, rows, weight, y, factor: 1 }, 'float32');
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
}
