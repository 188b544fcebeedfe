/**
 * Page selection as ONNX nodes: score the candidate pages of each item against its queries, take the best,
 * and merge them with the rows that are given. The score of a page is the largest, over its logical pages and
 * the item's queries, of the upper bound of q.k that min/max key statistics give (LServe, arXiv 2502.14866;
 * Quest, arXiv 2406.10774). Knows no sequences. Called by attention-graph.ts.
 */
import type { ModelSpec } from '../model/spec.ts';
import type { Graph, Value } from './graph.ts';
import { MEMORY_NAMES, STATISTICS_OFFSET, type LayerNames, type OnnxPrecision } from './graph-interface.ts';

export class SelectionGraph {
  readonly #headDim: number;
  readonly #int8: boolean;

  constructor(spec: ModelSpec, precision: OnnxPrecision) {
    this.#headDim = spec.headDim;
    this.#int8 = precision === 'int8';
  }

  /**
   * queries: gives, in the branch that needs them, [items, queries, headDim] -> the rows to read, flat as `order` lays them out, and the picked
   * rows, flat [selected items * pick]. Without selection the given rows and nothing.
   */
  rows(graph: Graph, names: LayerNames, queries: (branch: Graph) => Value): { rows: Value; picked: Value } {
    const [rows, picked] = graph.branch('select', ['int32', 'int32'], {
      then: (branch) => {
        const best = this.#pick(branch, names, queries(branch));
        const known = branch.op('Concat', [best, names.rows], { axis: 0 });
        return [branch.op('Gather', [known, names.order], { axis: 0 }), best];
      },
      otherwise: (branch) => [branch.op('Identity', [names.rows]), branch.op('Identity', [branch.constant('int32', [0], new Int32Array(0))])],
    }) as [Value, Value];
    return { rows, picked };
  }

  #pick(graph: Graph, names: LayerNames, queries: Value): Value {
    const chosen = graph.op('Gather', [queries, names.items], { axis: 0 });
    const statistics = graph.op('Reshape', [graph.op('Gather', [MEMORY_NAMES.statistics, names.candidates], { axis: 0 }), graph.int64(0, -1, 2 * this.#headDim)]);
    const bounds = this.#int8 ? this.#int8Bounds(graph, chosen, statistics) : this.#floatBounds(graph, chosen, statistics);
    // [items, candidates * logical pages, queries] -> [items, candidates]
    const numCandidates = graph.op('Shape', [names.candidates], { start: 1, end: 2 });
    const shape = graph.op('Concat', [graph.int64(0), numCandidates, graph.int64(-1)], { axis: 0 });
    const best = graph.op('ReduceMax', [graph.op('Reshape', [bounds, shape]), graph.int64(2)], { keepdims: 0 });
    const scores = graph.op('Add', [this.#int8 ? graph.op('Cast', [best], { to: 1 }) : best, names.bias]);
    const index = graph.ops('TopK', 2, [scores, 'pick'], { axis: 1, sorted: 0 })[1]!;
    return graph.op('Reshape', [graph.op('GatherElements', [names.candidates, index], { axis: 1 }), graph.int64(-1)]);
  }

  /**
   * sum over channels of max(q * max, q * min) = relu(q) . max + (q - relu(q)) . min: one product with
   * statistics kept as [max | min].
   */
  #signedQueries(graph: Graph, queries: Value): Value {
    const positive = graph.op('Relu', [queries]);
    return graph.op('Concat', [positive, graph.op('Sub', [queries, positive])], { axis: 2 });
  }

  #floatBounds(graph: Graph, queries: Value, statistics: Value): Value {
    return graph.contrib('FusedMatMul', [statistics, this.#signedQueries(graph, queries)], { transB: 1 });
  }

  /** Queries rounded to int8 with one scale per item: the scores of an item only rank. */
  #int8Bounds(graph: Graph, queries: Value, statistics: Value): Value {
    const signed = this.#signedQueries(graph, queries);
    const largest = graph.op('Max', [graph.op('ReduceMax', [graph.op('Abs', [queries]), graph.int64(1, 2)], { keepdims: 1 }), graph.scalar('float32', 1e-12)]);
    const rounded = graph.op('QuantizeLinear', [graph.op('Div', [signed, largest]), graph.scalar('float32', 1 / 127), graph.scalar('int8', 0)]);
    return graph.op('MatMulInteger', [statistics, graph.op('Transpose', [rounded], { perm: [0, 2, 1] }), graph.scalar('uint8', STATISTICS_OFFSET)]);
  }
}
