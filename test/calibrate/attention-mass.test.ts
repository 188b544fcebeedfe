// What heads attend to outside sinks and window: the onnx engine's probe against float64, key by key.
import { afterAll, expect, test } from 'vitest';
import { AttentionMass } from '../../calibrate/attention-mass.ts';
import { readAnswers } from '../../calibrate/measure.ts';
import type { Chunk } from '../../engine/engine.ts';
import { decode } from '../../engine/model/decoder.ts';
import { decoderTensors } from '../../engine/model/decoder-tensors.ts';
import { Rope } from '../../engine/model/rope.ts';
import { Weights } from '../../engine/model/weights.ts';
import { createOnnxEngine } from '../../engine/onnx/onnx-engine.ts';
import { ChunkAttention } from '../../engine/reference/attention.ts';
import type { Matrix } from '../../engine/reference/matrix.ts';
import { PageMemory } from '../../engine/reference/page-memory.ts';
import { ReferenceOps } from '../../engine/reference/reference-ops.ts';
import { SelectionMemory } from '../../engine/reference/selection-memory.ts';
import { DensePages } from '../../kvcache/page-lists/dense.ts';
import { pagesFor } from '../../kvcache/page-lists/lists.ts';
import { randomText } from '../engine/texts.ts';
import { writeTinyModel, type TinyModel, type TinyModelOptions } from '../tiny-model.ts';

const REACH = { sinkTokens: 16, windowTokens: 90 };
const TOKENS = 330;
const PROMPT_TOKENS = 300;
const models: TinyModel[] = [];
afterAll(() => { for (const model of models) model.remove(); });

/** Reference arithmetic that keeps what every layer asks and is asked. */
class RecordingOps extends ReferenceOps {
  readonly asked: { q: Matrix; k: Matrix }[] = [];

  override attend(layer: number, q: Matrix, k: Matrix, v: Matrix): Matrix {
    this.asked.push({ q, k });
    return super.attend(layer, q, k, v);
  }
}

/** The whole text as one chunk; mean share of attention outside, over the queries from `firstQuery` on. [layers * kvHeads] */
async function plainMass({ dir, spec }: TinyModel, tokens: Int32Array, firstQuery: number): Promise<number[]> {
  const weights = await Weights.open(dir, spec);
  const tensors = new Map(decoderTensors(spec).map(({ name }) => name).filter((name) => weights.has(name)).map((name) => [name, weights.float32(name)]));
  weights.close();
  const pages = pagesFor(tokens.length);
  const state = { spec, rope: new Rope(spec.rope, spec.headDim), memory: new PageMemory(spec, pages), selection: new SelectionMemory() };
  const pageTable = Int32Array.from({ length: pages }, (_, i) => i);
  const attention = new DensePages({ ...spec, headOrder: null }).plan(pageTable, 0);
  const chunk: Chunk = { phase: 'prefill', sequenceId: 0, tokens, start: 0, pageTable, attention, promptTokens: tokens.length, logits: 'none' };
  const ops = new RecordingOps(state, tensors, chunk, new ChunkAttention(state, chunk));
  decode(ops, spec);

  const group = spec.heads / spec.kvHeads;
  return ops.asked.flatMap(({ q, k }, layer) => Array.from({ length: spec.kvHeads }, (_, kvHead) => {
    const shares: number[] = [];
    for (let at = firstQuery; at < tokens.length - 1; at++) {
      for (let member = 0; member < group; member++) {
        const key = (j: number, c: number) => k.data[j * k.columns + kvHead * spec.headDim + c]!;
        const query = (c: number) => q.data[at * q.columns + (kvHead * group + member) * spec.headDim + c]!;
        const window = spec.slidingWindow[layer] ?? Infinity;
        const weights = Array.from({ length: at + 1 }, (_, j) => {
          let score = 0;
          for (let c = 0; c < spec.headDim; c++) score += query(c) * key(j, c);
          return j > at - window ? Math.exp(score / Math.sqrt(spec.headDim)) : 0;
        });
        const outside = weights.filter((_, j) => j >= REACH.sinkTokens && j <= at - REACH.windowTokens);
        shares.push(sum(outside) / sum(weights));
      }
    }
    return sum(shares) / shares.length;
  }));
}

async function probedMass({ dir, spec }: TinyModel, tokens: Int32Array): Promise<number[]> {
  const weights = await Weights.open(dir, spec);
  const probe = new AttentionMass(spec, REACH);
  const engine = await createOnnxEngine({ spec, weights, precision: 'fp32', threads: 1, pages: pagesFor(tokens.length), headOrder: null, probe });
  weights.close();
  // Two thirds of the prompt are the document, the rest is the question.
  const shared = tokens.subarray(0, 200);
  await readAnswers(engine, { shared, asked: [{ kind: 'needle', tokens: tokens.subarray(200), answerFrom: PROMPT_TOKENS - 200, countedFrom: PROMPT_TOKENS - 200 }] });
  await engine.close();
  return [...probe.take()];
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

test.each<[string, TinyModelOptions]>([
  ['llama', { layers: 3 }],
  ['llama, yarn positions', { rope: { rope_type: 'yarn', rope_theta: 10_000, factor: 4, original_max_position_embeddings: 128 } }],
  ['qwen2, window of 150 from layer 1', { family: 'qwen2', window: 150, maxWindowLayers: 1 }],
  ['qwen3, one KV head', { family: 'qwen3', kvHeads: 1, headDim: 32 }],
])('mass outside sinks and window is that of plain float64 attention: %s', async (_, options) => {
  const model = writeTinyModel(options);
  models.push(model);
  const { tokens } = randomText(1, TOKENS, { vocab: model.spec.vocab });
  const [probed, plain] = [await probedMass(model, tokens), await plainMass(model, tokens, PROMPT_TOKENS - 1)];
  expect(probed).toHaveLength(plain.length);
  plain.forEach((share, head) => {
    expect(share).toBeGreaterThan(0.01);
    expect(probed[head]).toBeCloseTo(share, 5);
  });
});

test('int8 engines refuse a probe: their keys are in units of their own', async () => {
  const model = writeTinyModel();
  models.push(model);
  const weights = await Weights.open(model.dir, model.spec);
  const probe = new AttentionMass(model.spec, REACH);
  await expect(createOnnxEngine({ spec: model.spec, weights, precision: 'int8', threads: 1, pages: 2, headOrder: null, probe })).rejects.toThrow(/fp32, not in int8/);
  weights.close();
});
