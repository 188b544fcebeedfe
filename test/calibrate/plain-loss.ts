/**
 * What answers cost when heads stream, said plainly: whole texts in float64, each query with the softmax over what it may
 * see. No pages, no chunks. Called by answer-loss.test.ts.
 */
import type { StreamingReach } from '../../calibrate/attention-mass.ts';
import type { KindLosses } from '../../calibrate/answer-loss.ts';
import type { Kind } from '../../calibrate/documents.ts';
import type { TokenizedDocument } from '../../calibrate/tokens.ts';
import type { Chunk } from '../../engine/engine.ts';
import { decode } from '../../engine/model/decoder.ts';
import { decoderTensors } from '../../engine/model/decoder-tensors.ts';
import { Rope } from '../../engine/model/rope.ts';
import { Weights } from '../../engine/model/weights.ts';
import { ChunkAttention, type AttentionState } from '../../engine/reference/attention.ts';
import { dot, row, zeros, type Matrix } from '../../engine/reference/matrix.ts';
import { PageMemory } from '../../engine/reference/page-memory.ts';
import { ReferenceOps, type TensorTable } from '../../engine/reference/reference-ops.ts';
import { SelectionMemory } from '../../engine/reference/selection-memory.ts';
import type { TinyModel } from '../tiny-model.ts';

interface Streaming extends StreamingReach {
  readonly heads: readonly number[];
}

/** Spans of queries share a window, which begins so many tokens before the span. */
const SPAN = 128;
const CONTINUATION = 256;
const WRONG = 5;

export async function plainLosses({ dir, spec }: TinyModel, documents: readonly TokenizedDocument[], streaming: Streaming): Promise<KindLosses> {
  const weights = await Weights.open(dir, spec);
  const tensors = new Map(decoderTensors(spec).map(({ name }) => name).filter((name) => weights.has(name)).map((name) => [name, weights.float32(name)]));
  weights.close();
  const losses = new Map<Kind, number[]>();
  const add = (kind: Kind, loss: number): void => { losses.set(kind, [...losses.get(kind) ?? [], loss]); };
  for (const { shared, asked } of documents) {
    for (const [i, { kind, tokens, countedFrom }] of asked.entries()) {
      const all = Int32Array.from([...shared, ...tokens]);
      const lossAt = lossesOf(spec, tensors, all, streaming);
      const lossOf = (from: number, to: number): number => all.slice(from, to).reduce((sum, _, at) => sum + lossAt(from + at), 0);
      add(kind, Math.min(WRONG, lossOf(shared.length + countedFrom, all.length)));
      if (i === 0) add('continuation', lossOf(shared.length - CONTINUATION, shared.length) / CONTINUATION);
    }
  }
  return new Map([...losses].map(([kind, own]) => [kind, own.reduce((a, b) => a + b, 0) / own.length]));
}

function lossesOf(spec: TinyModel['spec'], tensors: TensorTable, tokens: Int32Array, streaming: Streaming): (at: number) => number {
  const none = new Int32Array(0);
  const attention = { classes: [], classOf: new Uint8Array(0), selection: 'fresh' } as const;
  const chunk: Chunk = { phase: 'prefill', sequenceId: 0, tokens, start: 0, pageTable: none, attention, promptTokens: tokens.length, logits: 'all' };
  const state = { spec, rope: new Rope(spec.rope, spec.headDim), memory: new PageMemory(spec, 0), selection: new SelectionMemory() };
  const logits = decode(new MaskedOps(state, { tensors, chunk, streaming }), spec);
  return (at) => {
    const before = row(logits, at - 1);
    return Math.log(before.reduce((sum, logit) => sum + Math.exp(logit), 0)) - before[tokens[at]!]!;
  };
}

class MaskedOps extends ReferenceOps {
  readonly #spec: TinyModel['spec'];
  readonly #streaming: Streaming;

  constructor(state: AttentionState, { tensors, chunk, streaming }: { tensors: TensorTable; chunk: Chunk; streaming: Streaming }) {
    super(state, tensors, chunk, new ChunkAttention(state, chunk));
    this.#spec = state.spec;
    this.#streaming = streaming;
  }

  override attend(layer: number, q: Matrix, k: Matrix, v: Matrix): Matrix {
    const { heads, kvHeads, headDim } = this.#spec;
    const out = zeros(q.rows, q.columns);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      for (let at = 0; at < q.rows; at++) {
        const seen = Array.from({ length: at + 1 }, (_, j) => j).filter((j) => this.#sees(layer * kvHeads + kvHead, at, j));
        const query = row(q, at).subarray(head * headDim, (head + 1) * headDim);
        const weights = seen.map((j) => Math.exp(dot(query, k.data, j * k.columns + kvHead * headDim) / Math.sqrt(headDim)));
        const total = weights.reduce((a, b) => a + b, 0);
        const mixed = row(out, at);
        seen.forEach((j, i) => {
          const value = j * v.columns + kvHead * headDim;
          for (let c = 0; c < headDim; c++) mixed[head * headDim + c]! += weights[i]! / total * v.data[value + c]!;
        });
      }
    }
    return out;
  }

  #sees(head: number, at: number, j: number): boolean {
    const { heads, sinkTokens, windowTokens } = this.#streaming;
    return !heads.includes(head) || j < sinkTokens || j >= Math.floor(at / SPAN) * SPAN - windowTokens;
  }
}
