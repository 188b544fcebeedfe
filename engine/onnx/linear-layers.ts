/**
 * The linear layers of a graph in one precision. fp32: Gemm. int8: each activation row is quantised with a
 * scale of its own (so that a row's result never depends on its neighbours) and multiplied by int8 weights
 * with a scale per output column. Layers of one input are one product. Called by graph-ops.ts.
 */
import type { WeightName } from '../model/ops.ts';
import type { Weights } from '../model/weights.ts';
import type { Graph, Value } from './graph.ts';
import type { OnnxPrecision } from './graph-interface.ts';
import { quantizeColumns } from './quantize.ts';

/** The weights of several layers of one input, stacked along the output. */
interface Stacked {
  readonly label: string;
  /** [sum of outs, in] */
  readonly weight: Float32Array;
  /** [sum of outs], or null when no layer has a bias. */
  readonly bias: Float32Array | null;
  readonly outs: readonly number[];
  readonly inputs: number;
}

export class LinearLayers {
  readonly #graph: Graph;
  readonly #weights: Weights;
  readonly #multiply: (graph: Graph, x: Value, stacked: Stacked) => Value;

  constructor(graph: Graph, weights: Weights, precision: OnnxPrecision) {
    this.#graph = graph;
    this.#weights = weights;
    this.#multiply = precision === 'int8' ? int8Product : floatProduct;
  }

  /** x: [rows, in] -> one [rows, out] per name. */
  apply(x: Value, names: readonly WeightName[]): Value[] {
    const stacked = stack(this.#weights, names);
    return split(this.#graph, this.#multiply(this.#graph, x, stacked), stacked.outs);
  }
}

function floatProduct(graph: Graph, x: Value, { label, weight, bias, outs, inputs }: Stacked): Value {
  const operands = [x, graph.weight(label, 'float32', [total(outs), inputs], weight)];
  if (bias !== null) operands.push(graph.constant('float32', [bias.length], bias));
  return graph.op('Gemm', operands, { transB: 1 });
}

function int8Product(graph: Graph, x: Value, { label, weight, bias, outs, inputs }: Stacked): Value {
  const numOut = total(outs);
  const { data, scales } = quantizeColumns(weight, numOut, inputs);
  const { quantized, rowMax } = quantizeRows(graph, x);
  const product = graph.contrib('MatMulIntegerToFloat', [
    quantized,
    graph.weight(label, 'int8', [inputs, numOut], data),
    graph.scalar('float32', 1 / 127),
    graph.constant('float32', [numOut], scales),
    graph.scalar('uint8', 128),
  ]);
  const scaled = graph.op('Mul', [product, rowMax]);
  return bias === null ? scaled : graph.op('Add', [scaled, graph.constant('float32', [numOut], bias)]);
}

/** x = (quantized - 128) / 127 * rowMax. */
function quantizeRows(graph: Graph, x: Value): { quantized: Value; rowMax: Value } {
  // A row of zeros needs no guard: whatever 0 / 0 rounds to is multiplied by a largest value of 0.
  const rowMax = graph.op('ReduceMax', [graph.op('Abs', [x]), graph.int64(1)], { keepdims: 1 });
  const quantized = graph.op('QuantizeLinear', [graph.op('Div', [x, rowMax]), graph.scalar('float32', 1 / 127), graph.scalar('uint8', 128)]);
  return { quantized, rowMax };
}

function split(graph: Graph, value: Value, outs: readonly number[]): Value[] {
  if (outs.length === 1) return [value];
  return graph.ops('Split', outs.length, [value, graph.int64(...outs)], { axis: 1 });
}

function stack(weights: Weights, names: readonly WeightName[]): Stacked {
  const shapes = names.map((name) => weights.shape(`${name}.weight`));
  const outs = shapes.map((shape) => shape[0]!);
  const inputs = shapes[0]![1]!;
  const label = names.join('+');
  if (names.length === 1) return { label, weight: weights.float32(`${names[0]!}.weight`), bias: biasOf(weights, names, outs), outs, inputs };
  const weight = new Float32Array(total(outs) * inputs);
  let offset = 0;
  for (const name of names) {
    const part = weights.float32(`${name}.weight`);
    weight.set(part, offset);
    offset += part.length;
  }
  return { label, weight, bias: biasOf(weights, names, outs), outs, inputs };
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
