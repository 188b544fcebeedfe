/**
 * Attention of decode steps over a long text that is read whole, with int8 KV memory, as ONNX nodes: products of bytes
 * over blocks of BLOCK_TOKENS, all query heads of a KV head and all tokens of a chunk as rows of one product. The kernel
 * of attention-graph.ts works row by row; here a row more costs little, which is what verifying drafts needs. Queries and
 * weights of attention are rounded to bytes, the latter against the largest of their block. A row's numbers depend on its
 * own query and on the blocks alone: sums inside a block are of whole numbers, blocks add up in their order, so a chunk
 * gives what single steps give, to the bit. Knows no sequences. Called by attention-graph.ts; block-inputs.ts fills it.
 */
import { BLOCK_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { ModelSpec } from '../model/spec.ts';
import { blockNames as names } from './block-inputs.ts';
import type { Graph, Value } from './graph.ts';
import { MEMORY_NAMES, type LayerNames } from './graph-interface.ts';

/** [tokens, heads * headDim] in units of the stored keys, and the new rows as they are stored: [tokens, kvHeads * headDim]. */
export interface BlockAttentionInputs {
  readonly q: Value;
  readonly k: Value;
  readonly v: Value;
}

/** Of some blocks: the largest score, the sum of the weights relative to it, and the values so weighted. */
interface Partial {
  /** [sequences, kvHeads, blocks, rows, 1] */
  readonly peak: Value;
  /** [sequences, kvHeads, blocks, rows, 1] */
  readonly sum: Value;
  /** [sequences, kvHeads, blocks, rows, headDim] */
  readonly values: Value;
}

/** Axes of [sequences, kvHeads, blocks, rows, width]. */
const BLOCKS = 2;
const WIDTH = 4;

export function declareBlockInputs(graph: Graph): void {
  graph.input(names.isBlocks, 'bool', []);
  graph.input(names.cuts, 'int64', [2]);
  graph.input(names.places, 'int64', ['places', 1]);
  graph.input(names.mask, 'float32', ['sequences', 1, 1, 'blockRows', BLOCK_TOKENS]);
  graph.input(names.tokenShape, 'int64', [4]);
  graph.input(names.fullShape, 'int64', [5]);
  graph.input(names.lastShape, 'int64', [5]);
  graph.input(names.headShape, 'int64', [4]);
}

/** -> [tokens, heads * headDim], in units of the stored values. */
export function blockAttention(graph: Graph, spec: ModelSpec, layer: LayerNames, { q, k, v }: BlockAttentionInputs): Value {
  const query = quantizedQuery(graph, spec, q);
  const [fullRows, lastRows] = graph.ops('Split', 2, [layer.rows, names.cuts], { axis: 0 }) as [Value, Value];
  const full = (pool: Value): Value => graph.op('Reshape', [graph.op('Gather', [pool, fullRows], { axis: 0 }), names.fullShape]);
  const last = (pool: Value, added: Value): Value => {
    const rows = graph.op('Reshape', [graph.op('Gather', [pool, lastRows], { axis: 0 }), graph.int64(-1, spec.headDim)]);
    return graph.op('Reshape', [withNewRows(graph, spec, rows, added), names.lastShape]);
  };
  const parts = [
    attend(graph, query, { keys: full(MEMORY_NAMES.keys), values: full(MEMORY_NAMES.values), mask: null }),
    attend(graph, query, { keys: last(MEMORY_NAMES.keys, k), values: last(MEMORY_NAMES.values, v), mask: names.mask }),
  ];
  return byToken(graph, spec, merged(graph, parts));
}

interface Query {
  /** [sequences, kvHeads, 1, rows, headDim], 128 is zero */
  readonly bytes: Value;
  /** What a product of bytes is multiplied by. [sequences, kvHeads, 1, rows, 1] */
  readonly scale: Value;
}

function quantizedQuery(graph: Graph, { headDim }: ModelSpec, q: Value): Query {
  const perHead = graph.op('Transpose', [graph.op('Reshape', [q, names.tokenShape])], { perm: [0, 2, 1, 3] });
  const rows = graph.op('Reshape', [perHead, graph.int64(0, 0, 1, -1, headDim)]);
  const largest = graph.op('ReduceMax', [graph.op('Abs', [rows]), graph.int64(WIDTH)], { keepdims: 1 });
  const unit = graph.op('Div', [rows, largest]);
  return {
    bytes: graph.op('QuantizeLinear', [unit, graph.scalar('float32', 1 / 127), graph.scalar('uint8', 128)]),
    scale: graph.op('Mul', [largest, graph.scalar('float32', 1 / (127 * Math.sqrt(headDim)))]),
  };
}

/** The rows of the last block with the chunk's own tokens in their places. -> [rows, headDim] */
function withNewRows(graph: Graph, { headDim }: ModelSpec, rows: Value, added: Value): Value {
  const perHead = graph.op('Transpose', [graph.op('Reshape', [added, names.tokenShape])], { perm: [0, 2, 1, 3] });
  return graph.op('ScatterND', [rows, names.places, graph.op('Reshape', [perHead, graph.int64(-1, headDim)])]);
}

/** keys, values: [sequences, kvHeads, blocks, BLOCK_TOKENS, headDim] */
function attend(graph: Graph, query: Query, { keys, values, mask }: { keys: Value; values: Value; mask: Value | null }): Partial {
  const transposed = graph.op('Transpose', [keys], { perm: [0, 1, 2, 4, 3] });
  const one = graph.scalar('float32', 1);
  const product = graph.contrib('MatMulIntegerToFloat', [query.bytes, transposed, one, one, graph.scalar('uint8', 128)]);
  const scaled = graph.op('Mul', [product, query.scale]);
  const scores = mask === null ? scaled : graph.op('Add', [scaled, mask]); // [sequences, kvHeads, blocks, rows, BLOCK_TOKENS]
  const peak = graph.op('ReduceMax', [scores, graph.int64(WIDTH)], { keepdims: 1 });
  const weights = graph.op('Exp', [graph.op('Sub', [scores, peak])]);
  const step = graph.scalar('float32', 1 / 255);
  const bytes = graph.op('QuantizeLinear', [weights, step, graph.scalar('uint8', 0)]);
  return {
    peak,
    sum: graph.contrib('MatMulIntegerToFloat', [bytes, ones(graph), step, one]),
    values: graph.contrib('MatMulIntegerToFloat', [bytes, values, step, one]),
  };
}

/** A column that adds up a row of bytes. [BLOCK_TOKENS, 1] */
function ones(graph: Graph): Value {
  return graph.bytes([BLOCK_TOKENS, 1], new Int8Array(BLOCK_TOKENS).fill(1));
}

/** -> [sequences, kvHeads, 1, rows, headDim] */
function merged(graph: Graph, parts: readonly Partial[]): Value {
  const join = (of: (part: Partial) => Value): Value => graph.op('Concat', parts.map(of), { axis: BLOCKS });
  const overBlocks = (type: 'ReduceMax' | 'ReduceSum', x: Value): Value => graph.op(type, [x, graph.int64(BLOCKS)], { keepdims: 1 });
  const peaks = join(({ peak }) => peak);
  const shares = graph.op('Exp', [graph.op('Sub', [peaks, overBlocks('ReduceMax', peaks)])]);
  const summed = (of: (part: Partial) => Value): Value => overBlocks('ReduceSum', graph.op('Mul', [join(of), shares]));
  return graph.op('Div', [summed(({ values }) => values), summed(({ sum }) => sum)]);
}

function byToken(graph: Graph, { heads, headDim }: ModelSpec, perHead: Value): Value {
  const byHead = graph.op('Reshape', [perHead, names.headShape]);
  return graph.op('Reshape', [graph.op('Transpose', [byHead], { perm: [0, 2, 1, 3] }), graph.int64(-1, heads * headDim)]);
}
