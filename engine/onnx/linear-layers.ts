/**
 * The linear layers of a graph in one precision. fp32: Gemm. int8: each activation row is quantised with a
 * scale of its own (so that a row's result never depends on its neighbours) and multiplied by int8 weights
 * with a scale per output column. Layers of one input are one product. Called by graph-ops.ts.
 */
import type { WeightName } from '../model/ops.ts';
import type { Weights } from '../model/weights.ts';
import type { Graph, Value } from './graph.ts';
import { quantizeColumns } from './quantize.ts';

export interface LinearLayers {
  /** x: [rows, in] -> one [rows, out] per name. */
  apply(x: Value, names: readonly WeightName[]): Value[];
}

/** The weights of several layers of one input, stacked along the output. */
interface Stacked {
  /** [sum of outs, in] */
  readonly weight: Float32Array;
  /** [sum of outs], or null when no layer has a bias. */
  readonly bias: Float32Array | null;
  readonly outs: readonly number[];
  readonly inputs: number;
}

export class FloatLinearLayers implements LinearLayers {
  readonly #graph: Graph;
  readonly #weights: Weights;

  constructor(graph: Graph, weights: Weights) {
    this.#graph = graph;
    this.#weights = weights;
  }

  apply(x: Value, names: readonly WeightName[]): Value[] {
    const graph = this.#graph;
    const { weight, bias, outs, inputs } = stack(this.#weights, names);
    const label = names.join('+');
    const operands = [x, graph.weight(label, 'float32', [total(outs), inputs], weight)];
    if (bias !== null) operands.push(graph.constant('float32', [bias.length], bias));
    return split(graph, graph.op('Gemm', operands, { transB: 1 }), outs);
  }
}

export class Int8LinearLayers implements LinearLayers {
  readonly #graph: Graph;
  readonly #weights: Weights;

  constructor(graph: Graph, weights: Weights) {
    this.#graph = graph;
    this.#weights = weights;
  }

  apply(x: Value, names: readonly WeightName[]): Value[] {
    const graph = this.#graph;
    const { weight, bias, outs, inputs } = stack(this.#weights, names);
    const numOut = total(outs);
    const { data, scales } = quantizeColumns(weight, numOut, inputs);
    const { quantized, rowMax } = this.#quantizeRows(x);
    const product = graph.contrib('MatMulIntegerToFloat', [
      quantized,
      graph.weight(names.join('+'), 'int8', [inputs, numOut], data),
      graph.scalar('float32', 1 / 127),
      graph.constant('float32', [numOut], scales),
      graph.scalar('uint8', 128),
    ]);
    const scaled = graph.op('Mul', [product, rowMax]);
    const sum = bias === null ? scaled : graph.op('Add', [scaled, graph.constant('float32', [numOut], bias)]);
    return split(graph, sum, outs);
  }

  /** x = (quantized - 128) / 127 * rowMax. */
  #quantizeRows(x: Value): { quantized: Value; rowMax: Value } {
    const graph = this.#graph;
    // A row of zeros needs no guard: whatever 0 / 0 rounds to is multiplied by a largest value of 0.
    const rowMax = graph.op('ReduceMax', [graph.op('Abs', [x]), graph.int64(1)], { keepdims: 1 });
    const quantized = graph.op('QuantizeLinear', [graph.op('Div', [x, rowMax]), graph.scalar('float32', 1 / 127), graph.scalar('uint8', 128)]);
    return { quantized, rowMax };
  }
}

function split(graph: Graph, value: Value, outs: readonly number[]): Value[] {
  if (outs.length === 1) return [value];
  return graph.ops('Split', outs.length, [value, graph.int64(...outs)], { axis: 1 });
}

function stack(weights: Weights, names: readonly WeightName[]): Stacked {
  const shapes = names.map((name) => weights.shape(`${name}.weight`));
  const outs = shapes.map((shape) => shape[0]!);
  const inputs = shapes[0]![1]!;
  if (names.length === 1) return { weight: weights.float32(`${names[0]!}.weight`), bias: biasOf(weights, names, outs), outs, inputs };
  const weight = new Float32Array(total(outs) * inputs);
  let offset = 0;
  for (const name of names) {
    const part = weights.float32(`${name}.weight`);
    weight.set(part, offset);
    offset += part.length;
  }
  return { weight, bias: biasOf(weights, names, outs), outs, inputs };
}

function biasOf(weights: Weights, names: readonly WeightName[], outs: readonly number[]): Float32Array | null {
  if (!names.some((name) => weights.has(`${name}.bias`))) return null;
  const bias = new Float32Array(total(outs));
  let offset = 0;
  names.forEach((name, i) => {
    if (weights.has(`${name}.bias`)) bias.set(weights.float32(`${name}.bias`), offset);
    offset += outs[i]!;
  });
  return bias;
}

function total(outs: readonly number[]): number {
  return outs.reduce((sum, out) => sum + out, 0);
}
