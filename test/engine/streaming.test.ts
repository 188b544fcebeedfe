// StreamingLLM through the engines: positions inside the list however far the text is, and many such texts together.
import { afterAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../engine/engine.ts';
import { Weights } from '../../engine/model/weights.ts';
import { createOnnxEngine } from '../../engine/onnx/onnx-engine.ts';
import { ReferenceEngine } from '../../engine/reference/reference-engine.ts';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import { writeTinyModel, type TinyModel, type TinyModelOptions } from '../tiny-model.ts';
import { chunkOf, listOf, pagesFor, planOf, randomText, readText, relativeError, type Planner, type Text } from './texts.ts';

type Kind = 'reference' | 'fp32' | 'int8';

const models: TinyModel[] = [];
afterAll(() => { for (const model of models) model.remove(); });

function newModel(options: TinyModelOptions = {}): TinyModel {
  const model = writeTinyModel({ layers: 3, ...options });
  models.push(model);
  return model;
}

async function open({ dir, spec }: TinyModel, kind: Kind, pages: number): Promise<Engine> {
  const weights = await Weights.open(dir, spec);
  try {
    if (kind === 'reference') return new ReferenceEngine({ spec, weights, pages, headOrder: null });
    return await createOnnxEngine({ spec, weights, precision: kind, threads: 1, pages, headOrder: null });
  } finally {
    weights.close();
  }
}

describe('a window at position 1,000,000 with its sinks moved up', () => {
  const FAR = 1_000_000;
  const SINKS = 64;
  const WINDOW = 200;

  /** Sinks at 0..63, then the window at FAR.. as if nothing lay between. */
  async function readFar(engine: Engine, near: Text): Promise<Float32Array> {
    const far: Text = { ...near, tokens: new Int32Array(FAR + WINDOW), pageTable: new Int32Array(pagesFor(FAR + WINDOW)).fill(-1) };
    far.tokens.set(near.tokens.subarray(0, SINKS));
    far.tokens.set(near.tokens.subarray(SINKS), FAR);
    far.pageTable[0] = near.pageTable[0]!;
    far.pageTable.set(near.pageTable.subarray(1), FAR / PAGE_TOKENS);
    const sinksMoved: Planner = (_, { pageTable }, start) => {
      const fixed = [pageTable[0]!, ...pageTable.subarray(FAR / PAGE_TOKENS, pagesFor(start))];
      const positionDelta = Int32Array.from(fixed, (_, i) => (i === 0 ? FAR - SINKS : 0));
      return planOf(engine, { ...listOf(fixed, SINKS + start - FAR), positionDelta });
    };
    await readText(engine, far, { to: SINKS });
    const prefilled = await readText(engine, far, { from: FAR, to: FAR + 150, chunkTokens: 128, planner: sinksMoved });
    const decoded = await readText(engine, far, { from: FAR + 150, chunkTokens: 1, planner: sinksMoved });
    return Float32Array.from([...prefilled, ...decoded]);
  }

  /** The same tokens at positions 0, 1, 2 ... */
  async function readNear(engine: Engine, near: Text): Promise<Float32Array> {
    return (await readText(engine, near, { chunkTokens: 64 })).slice(SINKS * engine.spec.vocab);
  }

  // In int8 a turned key is rounded once more.
  test.each<[Kind, number]>([['reference', 1e-6], ['fp32', 1e-5], ['int8', 0.1]])('gives what positions 0, 1, 2 ... give: %s', async (kind, tolerance) => {
    const model = newModel();
    const text = randomText(1, SINKS + WINDOW, { vocab: model.spec.vocab });
    const plain = await readNear(await open(model, 'reference', 6), text);
    expect(relativeError(await readFar(await open(model, kind, 6), text), plain)).toBeLessThan(tolerance);
  });
});

const streaming: AttentionSettings = {
  attention: 'streaming', tokenBudget: 320, sinkTokens: 64, localTokens: 128, streamingHeads: 0,
  selectionInterval: 4, selectionPerQueryHead: false, renumberPositions: true, sparsePrefill: true,
};

function plannerOf(engine: Engine, changes: Partial<AttentionSettings> = {}): Planner {
  const policy = createPageListPolicy({ ...streaming, ...changes }, engine.spec);
  return (_, { pageTable }, start) => policy.plan(pageTable, start, 1, 'prefill');
}

test.each<[string, TinyModelOptions]>([
  ['llama', {}],
  ['dynamic positions, a prompt longer than they were made for', { contextLength: 128, rope: { rope_type: 'dynamic', rope_theta: 10_000, factor: 2 } }],
  ['yarn positions', { rope: { rope_type: 'yarn', rope_theta: 10_000, factor: 4, original_max_position_embeddings: 128 } }],
  ['mistral, window of 100', { family: 'mistral', window: 100 }],
])('renumbered lists are read as the reference reads them: %s', async (_, options) => {
  const model = newModel(options);
  const text = randomText(1, 700, { vocab: model.spec.vocab });
  const read = async (kind: Kind) => {
    const engine = await open(model, kind, 11);
    await readText(engine, text, { to: 640, chunkTokens: 128, planner: plannerOf(engine) });
    return readText(engine, text, { from: 640, chunkTokens: 1, planner: plannerOf(engine) });
  };
  expect(relativeError(await read('fp32'), await read('reference'))).toBeLessThan(1e-5);
});

test('a list that holds the whole text gives the dense result to the bit', async () => {
  const model = newModel();
  const engine = await open(model, 'fp32', 6);
  const text = randomText(1, 300, { vocab: model.spec.vocab });
  const dense = await readText(engine, text, { chunkTokens: 100 });
  engine.forget(1);
  expect(await readText(engine, text, { chunkTokens: 100, planner: plannerOf(engine, { localTokens: 256 }) })).toEqual(dense);
  expect(relativeError(await readText(engine, text, { chunkTokens: 64, planner: plannerOf(engine, { localTokens: 64 }) }), dense)).toBeGreaterThan(0.01);
});

test('more texts than there are turned copies decode together as alone', async () => {
  const model = newModel({ layers: 1 });
  const numTexts = 70;
  const sinkTokens = 256;
  const length = 600;
  const engine = await open(model, 'fp32', numTexts * pagesFor(length));
  const planner = plannerOf(engine, { sinkTokens, localTokens: 64 });
  const texts = Array.from({ length: numTexts }, (_, i) => randomText(i, length, { vocab: model.spec.vocab, firstPage: i * pagesFor(length) }));
  for (const text of texts) await readText(engine, text, { to: length - 1, chunkTokens: 128, planner });
  const last = (text: Text) => chunkOf(engine, text, { start: length - 1, end: length }, { planner });
  const alone: Float32Array[] = [];
  for (const text of texts) alone.push(Float32Array.from((await engine.run([last(text)])).logits[0]!));
  const together = (await engine.run(texts.map(last))).logits;
  for (const [i, row] of together.entries()) expect(relativeError(row!, alone[i]!), `text ${i}`).toBeLessThan(1e-5);
});
