/**
 * Ops that append nodes to an ONNX graph; a value is the name of a tensor. One graph serves every step:
 * what varies comes in through the inputs that run-inputs.ts fills. Knows no sequences. Called by
 * onnx-engine.ts through the decoder.
 */
import type { Ops, WeightName } from '../model/ops.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { Weights } from '../model/weights.ts';
import { AttentionGraph } from './attention-graph.ts';
import type { Graph, Value } from './graph.ts';
import { layerNames, type OnnxPrecision } from './graph-interface.ts';
import { LinearLayers } from './linear-layers.ts';

export interface GraphOpsOptions {
  readonly graph: Graph;
  readonly spec: ModelSpec;
  readonly weights: Weights;
  readonly precision: OnnxPrecision;
  /** Whether every layer's queries are outputs too. */
  readonly showsQueries: boolean;
}

export class GraphOps implements Ops<Value> {
  readonly #graph: Graph;
  readonly #spec: ModelSpec;
  readonly #weights: Weights;
  readonly #linears: LinearLayers;
  readonly #attention: AttentionGraph;
  readonly #showsQueries: boolean;

  constructor({ graph, spec, weights, precision, showsQueries }: GraphOpsOptions) {
    this.#graph = graph;
    this.#spec = spec;
    this.#weights = weights;
    this.#showsQueries = showsQueries;
    this.#linears = new LinearLayers(graph, weights, precision);
    graph.input('tokens', 'int32', ['tokens']);
    graph.input('outputRows', 'int32', ['rows']);
    graph.input('cos', 'float32', ['tokens', spec.headDim / 2]);
    graph.input('sin', 'float32', ['tokens', spec.headDim / 2]);
    this.#attention = new AttentionGraph(graph, spec, precision);
  }

  embed(table: WeightName): Value {
    const name = `${table}.weight`;
    const rows = this.#graph.weight(`${table}.rows`, 'float32', this.#weights.shape(name), this.#weights.float32(name));
    return this.#graph.op('Gather', [rows, 'tokens'], { axis: 0 });
  }

  rmsNorm(x: Value, weight: WeightName): Value {
    return this.#graph.op('SimplifiedLayerNormalization', [x, this.#vector(weight)], { epsilon: { float: this.#spec.normEps }, axis: -1 });
  }

  addNorm(x: Value, delta: Value, weight: WeightName): { sum: Value; normed: Value } {
    const attributes = { epsilon: { float: this.#spec.normEps } };
    const outputs = this.#graph.contribs('SkipSimplifiedLayerNormalization', [true, false, false, true], [x, delta, this.#vector(weight)], attributes);
    return { normed: outputs[0]!, sum: outputs[3]! };
  }

  linear(x: Value, layer: WeightName): Value {
    return this.linears(x, [layer])[0]!;
  }

  linears(x: Value, layers: readonly WeightName[]): Value[] {
    return this.#linears.apply(x, layers);
  }

  headNorm(x: Value, weight: WeightName, heads: number): Value {
    const { headDim } = this.#spec;
    const perHead = this.#graph.op('Reshape', [x, this.#graph.int64(-1, heads, headDim)]);
    return this.#graph.op('Reshape', [this.rmsNorm(perHead, weight), this.#graph.int64(-1, heads * headDim)]);
  }

  rope(x: Value, heads: number): Value {
    const graph = this.#graph;
    const width = heads * this.#spec.headDim;
    // Position 0 of the tables is the step's first token: cos and sin hold the step's rows only.
    const rotated = graph.contrib('RotaryEmbedding', [graph.op('Reshape', [x, graph.int64(1, -1, width)]), graph.int64(0), 'cos', 'sin'], { num_heads: heads });
    return graph.op('Reshape', [rotated, graph.int64(-1, width)]);
  }

  attend(layer: number, q: Value, k: Value, v: Value): Value {
    const { heads, headDim } = this.#spec;
    if (this.#showsQueries) this.#graph.output(layerNames(layer).queries, q, 'float32', ['tokens', heads * headDim]);
    return this.#attention.layer(layer, { q, k, v });
  }

  siluMul(gate: Value, up: Value): Value {
    // QuickGelu is x * sigmoid(alpha * x): silu when alpha is 1, in one node.
    return this.#graph.op('Mul', [this.#graph.contrib('QuickGelu', [gate], { alpha: { float: 1 } }), up]);
  }

  selectRows(x: Value): Value {
    return this.#graph.op('Gather', [x, 'outputRows'], { axis: 0 });
  }

  logits(x: Value, layer: WeightName): Value {
    return this.linear(x, layer);
  }

  #vector(name: WeightName): Value {
    const weight = this.#weights.float32(`${name}.weight`);
    return this.#graph.constant('float32', [weight.length], weight);
  }
}
