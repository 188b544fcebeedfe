/**
 * Attention over page lists as ONNX nodes. Per layer: KV memory comes in as inputs (the engine owns the
 * bytes and writes the new rows after the run), the pages to read as row numbers (row = page * kvHeads +
 * head), and four shapes of a run are branches of one graph:
 *   decode   one token of each of B sequences; every (sequence, KV head) is a batch entry with a list of its own
 *   uniform  one chunk of one sequence, all heads of a layer reading lists of one length
 *   split    one chunk of one sequence, each head reading a list of its own length
 *   queryHeads  as decode, every query head a batch entry: each reads pages of its own choice
 * The kernel takes a batch of sequences for one new token each only, so several decode steps of a sequence
 * are a chunk. With int8 KV they go through decode's kernel (`steps`), for its very sums; prefill is computed
 * in float, which is faster for many rows.
 * With int8 KV, keys and values arrive divided by their scales (quantised with scale 1), and the scales are
 * folded into q and into the result. Knows no sequences. Called by graph-ops.ts.
 */
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { ElementType, Graph, Value } from './graph.ts';
import { blockAttention, declareBlockInputs } from './block-attention-graph.ts';
import { blockNames } from './block-inputs.ts';
import { layerNames, LOGICAL_PAGES, MEMORY_NAMES, type LayerNames, type OnnxPrecision } from './graph-interface.ts';
import { SelectionGraph } from './selection-graph.ts';

interface Projections { readonly q: Value; readonly k: Value; readonly v: Value }

export class AttentionGraph {
  readonly #graph: Graph;
  readonly #spec: ModelSpec;
  readonly #int8: boolean;
  readonly #selection: SelectionGraph;
  /** Scale of K and V in the int8 kernel: theirs are folded into q and the result. */
  readonly #one: Value;

  constructor(graph: Graph, spec: ModelSpec, precision: OnnxPrecision) {
    this.#graph = graph;
    this.#spec = spec;
    this.#int8 = precision === 'int8';
    this.#selection = new SelectionGraph(spec, precision);
    this.#one = graph.constant('float32', [1], Float32Array.of(1));
    graph.input('listShape', 'int64', [4]);
    for (const condition of ['decode', 'queryHeads', 'uniform', 'select', ...(this.#int8 ? ['steps'] : [])]) graph.input(condition, 'bool', []);
    if (this.#int8) declareBlockInputs(graph);
    graph.input('pick', 'int64', [1]);
    graph.input('asking', 'int32', ['asking']);
    this.#declareMemory();
    for (let layer = 0; layer < spec.layers; layer++) this.#declare(layer);
  }

  /** -> [tokens, heads * headDim]; also outputs the layer's new keys and values and the picked rows. */
  layer(layer: number, projections: Projections): Value {
    const graph = this.#graph;
    const names = layerNames(layer);
    const scaled = this.#int8 ? this.#scale(names, projections) : projections;
    const stored = this.#store(names, scaled);
    const byKernel = (graph: Graph): Value[] => graph.branch('decode', ['float32', 'int32'], {
      then: (branch) => this.#decode(branch, layer, scaled),
      otherwise: (other) => other.branch('queryHeads', ['float32', 'int32'], {
        then: (branch) => this.#queryHeads(branch, layer, scaled),
        otherwise: (branch) => this.#chunk(branch, layer, { steps: scaled, prefill: { ...scaled, ...stored } }),
      }),
    });
    const [attended, picked] = (this.#int8 ? graph.branch(blockNames.isBlocks, ['float32', 'int32'], {
      then: (branch) => [blockAttention(branch, this.#spec, names, { q: scaled.q, ...stored }), names.items],
      otherwise: byKernel,
    }) : byKernel(graph)) as [Value, Value];
    graph.output(names.picked, picked, 'int32', ['picked']);
    return this.#int8 ? graph.op('Mul', [attended, names.outputScale]) : attended;
  }

  #declareMemory(): void {
    const { headDim } = this.#spec;
    const stored: ElementType = this.#int8 ? 'int8' : 'float32';
    for (const name of [MEMORY_NAMES.keys, MEMORY_NAMES.values]) this.#graph.input(name, stored, ['poolRows', PAGE_TOKENS * headDim]);
    this.#graph.input(MEMORY_NAMES.statistics, this.#int8 ? 'uint8' : 'float32', ['poolRows', LOGICAL_PAGES * 2 * headDim]);
  }

  #declare(layer: number): void {
    const { heads, kvHeads, headDim } = this.#spec;
    const graph = this.#graph;
    const names = layerNames(layer);
    graph.input(names.rows, 'int32', [`rows${layer}`]);
    graph.input(names.cuts, 'int64', [kvHeads]);
    graph.input(names.past, 'int32', [`lists${layer}`]);
    graph.input(names.totals, 'int32', [`totals${layer}`]);
    graph.input(names.items, 'int32', [`items${layer}`]);
    graph.input(names.candidates, 'int32', [`items${layer}`, `candidates${layer}`]);
    graph.input(names.bias, 'float32', [`items${layer}`, `candidates${layer}`]);
    graph.input(names.order, 'int32', [`order${layer}`]);
    if (!this.#int8) return;
    graph.input(names.queryScale, 'float32', [heads * headDim]);
    graph.input(names.keyInverse, 'float32', [kvHeads * headDim]);
    graph.input(names.valueInverse, 'float32', [kvHeads * headDim]);
    graph.input(names.outputScale, 'float32', [heads * headDim]);
  }

  #scale(names: LayerNames, { q, k, v }: Projections): Projections {
    const graph = this.#graph;
    return {
      q: graph.op('Mul', [q, names.queryScale]),
      k: graph.op('Mul', [k, names.keyInverse]),
      v: graph.op('Mul', [v, names.valueInverse]),
    };
  }

  /** Outputs the new keys and values as KV memory keeps them; returns them as prefill must see them: rounded alike. */
  #store(names: LayerNames, { k, v }: Projections): { k: Value; v: Value } {
    const stored = (name: string, x: Value): Value => {
      const graph = this.#graph;
      const dimensions = ['tokens', this.#spec.kvHeads * this.#spec.headDim];
      if (!this.#int8) {
        graph.output(name, x, 'float32', dimensions);
        return x;
      }
      const inputs = [x, graph.scalar('float32', 1), graph.scalar('int8', 0)];
      return graph.outputOp(name, { type: 'QuantizeLinear', inputs }, { type: 'int8', dimensions });
    };
    return { k: stored(names.newKeys, k), v: stored(names.newValues, v) };
  }

  #decode(graph: Graph, layer: number, { q, k, v }: Projections): Value[] {
    const { heads, kvHeads, headDim } = this.#spec;
    const names = layerNames(layer);
    const group = heads / kvHeads;
    const perItem = graph.op('Reshape', [q, graph.int64(-1, group, headDim)]); // [items, group, headDim]
    const { rows, picked } = this.#selection.rows(graph, names, () => perItem);
    const past = (pool: Value): Value => graph.op('Reshape', [graph.op('Gather', [pool, rows], { axis: 0 }), 'listShape']);
    const attended = this.#attend(graph, layer, {
      q: graph.op('Reshape', [q, graph.int64(-1, 1, group * headDim)]),
      k: graph.op('Reshape', [k, graph.int64(-1, 1, headDim)]),
      v: graph.op('Reshape', [v, graph.int64(-1, 1, headDim)]),
      pastKeys: past(MEMORY_NAMES.keys), pastValues: past(MEMORY_NAMES.values), past: names.past, total: names.totals,
      heads: group, kvHeads: 1, int8: this.#int8,
    });
    return [graph.op('Reshape', [attended, graph.int64(-1, heads * headDim)]), picked];
  }

  #queryHeads(graph: Graph, layer: number, { q, k, v }: Projections): Value[] {
    const { heads, kvHeads, headDim } = this.#spec;
    const names = layerNames(layer);
    const perItem = graph.op('Reshape', [q, graph.int64(-1, 1, headDim)]); // [items, 1, headDim]
    const { rows, picked } = this.#selection.rows(graph, names, () => perItem);
    const past = (pool: Value): Value => graph.op('Reshape', [graph.op('Gather', [pool, rows], { axis: 0 }), 'listShape']);
    const shared = (x: Value): Value => {
      const repeated = graph.op('Tile', [graph.op('Reshape', [x, graph.int64(-1, 1, headDim)]), graph.int64(1, heads / kvHeads, 1)]);
      return graph.op('Reshape', [repeated, graph.int64(-1, 1, headDim)]);
    };
    const attended = this.#attend(graph, layer, {
      q: perItem, k: shared(k), v: shared(v),
      pastKeys: past(MEMORY_NAMES.keys), pastValues: past(MEMORY_NAMES.values), past: names.past, total: names.totals,
      heads: 1, kvHeads: 1, int8: this.#int8,
    });
    return [graph.op('Reshape', [attended, graph.int64(-1, heads * headDim)]), picked];
  }

  /** `steps` and `prefill`: the chunk's projections as either kernel takes them. */
  #chunk(graph: Graph, layer: number, projections: { steps: Projections; prefill: Projections }): Value[] {
    const { rows, picked } = this.#selection.rows(graph, layerNames(layer), (branch) => this.#askingQueries(branch, projections.steps.q));
    const attend = (branch: Graph, kernel: Kernel): Value => {
      const input = { layer, rows, ...projections[kernel], int8: this.#int8 && kernel === 'steps' };
      return branch.branch('uniform', ['float32'], {
        then: (uniform) => [this.#uniform(uniform, input)],
        otherwise: (split) => [this.#split(split, input)],
      })[0]!;
    };
    if (!this.#int8) return [attend(graph, 'prefill'), picked];
    const attended = graph.branch('steps', ['float32'], {
      then: (branch) => [attend(branch, 'steps')],
      otherwise: (branch) => [attend(branch, 'prefill')],
    });
    return [attended[0]!, picked];
  }

  /** Queries of the tokens that pages are picked for. -> [kvHeads, asking * group, headDim] */
  #askingQueries(graph: Graph, q: Value): Value {
    const { kvHeads, headDim } = this.#spec;
    const asking = graph.op('Gather', [q, 'asking'], { axis: 0 });
    const perHead = graph.op('Transpose', [graph.op('Reshape', [asking, graph.int64(0, kvHeads, -1)])], { perm: [1, 0, 2] });
    return graph.op('Reshape', [perHead, graph.int64(kvHeads, -1, headDim)]);
  }

  #uniform(graph: Graph, { layer, q, k, v, rows, int8 }: ChunkInputs): Value {
    const { heads, kvHeads, headDim } = this.#spec;
    const names = layerNames(layer);
    const past = (pool: Value): Value => graph.op('Reshape', [this.#kept(graph, graph.op('Gather', [pool, rows], { axis: 0 }), int8), graph.int64(1, kvHeads, -1, headDim)]);
    const attended = this.#attend(graph, layer, {
      q: graph.op('Reshape', [q, graph.int64(1, -1, heads * headDim)]),
      k: graph.op('Reshape', [this.#kept(graph, k, int8), graph.int64(1, -1, kvHeads * headDim)]),
      v: graph.op('Reshape', [this.#kept(graph, v, int8), graph.int64(1, -1, kvHeads * headDim)]),
      pastKeys: past(MEMORY_NAMES.keys), pastValues: past(MEMORY_NAMES.values), past: names.past, total: names.totals,
      heads, kvHeads, int8,
    });
    return graph.op('Reshape', [attended, graph.int64(-1, heads * headDim)]);
  }

  #split(graph: Graph, { layer, q, k, v, rows, int8 }: ChunkInputs): Value {
    const { heads, kvHeads, headDim } = this.#spec;
    const names = layerNames(layer);
    const group = heads / kvHeads;
    const parts = (x: Value, axis: number): Value[] => (kvHeads === 1 ? [x] : graph.ops('Split', kvHeads, [x], { axis, num_outputs: kvHeads }));
    const headRows = kvHeads === 1 ? [rows] : graph.ops('Split', kvHeads, [rows, names.cuts], { axis: 0 });
    const [queries, keys, values] = [parts(q, 1), parts(this.#kept(graph, k, int8), 1), parts(this.#kept(graph, v, int8), 1)];
    const [past, totals] = [parts(names.past, 0), parts(names.totals, 0)];
    const attended = headRows.map((list, head) => {
      const pages = (pool: Value): Value => graph.op('Reshape', [this.#kept(graph, graph.op('Gather', [pool, list], { axis: 0 }), int8), graph.int64(1, 1, -1, headDim)]);
      return this.#attend(graph, layer, {
        q: graph.op('Reshape', [queries[head]!, graph.int64(1, -1, group * headDim)]),
        k: graph.op('Reshape', [keys[head]!, graph.int64(1, -1, headDim)]),
        v: graph.op('Reshape', [values[head]!, graph.int64(1, -1, headDim)]),
        pastKeys: pages(MEMORY_NAMES.keys), pastValues: pages(MEMORY_NAMES.values), past: past[head]!, total: totals[head]!,
        heads: group, kvHeads: 1, int8,
      });
    });
    const joined = kvHeads === 1 ? attended[0]! : graph.op('Concat', attended, { axis: 2 });
    return graph.op('Reshape', [joined, graph.int64(-1, heads * headDim)]);
  }

  /** One GroupQueryAttention node. q, k, v: [batch, tokens, width]; past: [batch, kvHeads, list tokens, headDim]. */
  #attend(graph: Graph, layer: number, a: AttendInputs): Value {
    const window = this.#spec.slidingWindow[layer] ?? null;
    const inputs = [a.q, a.k, a.v, a.pastKeys, a.pastValues, a.past, a.total];
    if (a.int8) inputs.push('', '', '', '', '', this.#one, this.#one);
    const attributes = {
      num_heads: a.heads, kv_num_heads: a.kvHeads,
      ...(a.int8 ? { k_quant_type: 'PER_TENSOR', v_quant_type: 'PER_TENSOR', kv_cache_bit_width: 8 } : {}),
      ...(window === null ? {} : { local_window_size: window }),
    };
    // All three outputs must be named: without the present ones the kernel gives wrong numbers.
    return graph.contribs('GroupQueryAttention', [true, true, true], inputs, attributes)[0]!;
  }

  /** As the kernel takes it: as it is, or in float. */
  #kept(graph: Graph, x: Value, int8: boolean): Value {
    return int8 || !this.#int8 ? x : graph.op('Cast', [x], { to: 1 });
  }
}

/** Several decode steps of a sequence, or a piece of its prompt. */
type Kernel = 'steps' | 'prefill';

interface ChunkInputs extends Projections {
  readonly layer: number;
  /** Rows of KV memory to read. */
  readonly rows: Value;
  /** Whether the int8 kernel runs. */
  readonly int8: boolean;
}

interface AttendInputs {
  readonly q: Value; readonly k: Value; readonly v: Value;
  readonly pastKeys: Value; readonly pastValues: Value;
  /** Valid past tokens + new tokens - 1 of each batch entry. */
  readonly past: Value;
  readonly total: Value;
  readonly heads: number; readonly kvHeads: number; readonly int8: boolean;
}
