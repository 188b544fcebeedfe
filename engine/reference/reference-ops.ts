/**
 * Every op of the decoder in float64, one token after the other: what the ops mean. Slow and obvious on
 * purpose. Knows no sequences; attention has its own file. Made by reference-engine.ts for each chunk.
 */
import type { Chunk } from '../engine.ts';
import type { Ops, WeightName } from '../model/ops.ts';
import { rotate, type RopeTable } from '../model/rope.ts';
import type { AttentionState, ChunkAttention } from './attention.ts';
import { dot, row, zeros, type Matrix } from './matrix.ts';

/** Tensors of the checkpoint by full name. */
export type TensorTable = ReadonlyMap<string, Float32Array>;

export class ReferenceOps implements Ops<Matrix> {
  readonly #state: AttentionState;
  readonly #tensors: TensorTable;
  readonly #chunk: Chunk;
  readonly #attention: ChunkAttention;
  readonly #positions: RopeTable;

  constructor(state: AttentionState, tensors: TensorTable, chunk: Chunk, attention: ChunkAttention) {
    this.#state = state;
    this.#tensors = tensors;
    this.#chunk = chunk;
    this.#attention = attention;
    this.#positions = positionTable(state, chunk);
  }

  embed(table: WeightName): Matrix {
    const weight = this.#tensor(`${table}.weight`);
    const { hidden } = this.#state.spec;
    const out = zeros(this.#chunk.tokens.length, hidden);
    this.#chunk.tokens.forEach((id, token) => {
      out.data.set(weight.subarray(id * hidden, (id + 1) * hidden), token * hidden);
    });
    return out;
  }

  rmsNorm(x: Matrix, weight: WeightName): Matrix {
    return this.#normalize(x, weight, x.columns);
  }

  addNorm(x: Matrix, delta: Matrix, weight: WeightName): { sum: Matrix; normed: Matrix } {
    const sum = { ...x, data: x.data.map((value, i) => value + delta.data[i]!) };
    return { sum, normed: this.rmsNorm(sum, weight) };
  }

  linear(x: Matrix, layer: WeightName): Matrix {
    const weight = this.#tensor(`${layer}.weight`);
    const bias = this.#tensors.get(`${layer}.bias`) ?? null;
    const out = zeros(x.rows, weight.length / x.columns);
    for (let token = 0; token < x.rows; token++) {
      const input = row(x, token);
      const output = row(out, token);
      for (let i = 0; i < output.length; i++) output[i] = dot(input, weight, i * x.columns) + (bias?.[i] ?? 0);
    }
    return out;
  }

  linears(x: Matrix, layers: readonly WeightName[]): Matrix[] {
    return layers.map((layer) => this.linear(x, layer));
  }

  headNorm(x: Matrix, weight: WeightName, heads: number): Matrix {
    return this.#normalize(x, weight, x.columns / heads);
  }

  rope(x: Matrix, heads: number): Matrix {
    const out = { ...x, data: Float64Array.from(x.data) };
    const { headDim } = this.#state.spec;
    for (let token = 0; token < x.rows; token++) {
      for (let head = 0; head < heads; head++) {
        rotate(out.data, token * x.columns + head * headDim, this.#positions, token, headDim / 2);
      }
    }
    return out;
  }

  attend(layer: number, q: Matrix, k: Matrix, v: Matrix): Matrix {
    return this.#attention.attend(layer, q, k, v);
  }

  siluMul(gate: Matrix, up: Matrix): Matrix {
    return { ...gate, data: gate.data.map((value, i) => value / (1 + Math.exp(-value)) * up.data[i]!) };
  }

  selectRows(x: Matrix): Matrix {
    const from = { none: x.rows, last: x.rows - 1, all: 0 }[this.#chunk.logits];
    return { rows: x.rows - from, columns: x.columns, data: x.data.subarray(from * x.columns) };
  }

  logits(x: Matrix, layer: WeightName): Matrix {
    return this.linear(x, layer);
  }

  /** RMS norm of every run of `width` channels, with the same weight for each run. */
  #normalize(x: Matrix, name: WeightName, width: number): Matrix {
    const weight = this.#tensor(`${name}.weight`);
    const out = zeros(x.rows, x.columns);
    for (let from = 0; from < x.data.length; from += width) {
      const run = x.data.subarray(from, from + width);
      const scale = 1 / Math.sqrt(dot(run, run) / width + this.#state.spec.normEps);
      out.data.set(run.map((value, i) => value * scale * weight[i]!), from);
    }
    return out;
  }

  #tensor(name: string): Float32Array {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new RangeError(`the decoder asks for ${name}, which was not loaded`);
    return tensor;
  }
}

function positionTable({ rope }: AttentionState, { start, tokens, promptTokens }: Chunk): RopeTable {
  const size = tokens.length * rope.pairs;
  const table = { cos: new Float64Array(size), sin: new Float64Array(size) };
  rope.fill(table, { start, tokens: tokens.length, promptTokens });
  return table;
}
