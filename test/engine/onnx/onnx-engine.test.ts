// The ONNX engine: the cases of every engine, in both precisions, and recycled memory.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createOnnxEngine, type OnnxEngine } from '../../../engine/onnx/onnx-engine.ts';
import type { OnnxPrecision } from '../../../engine/onnx/graph-interface.ts';
import { readHeadOrder } from '../../../engine/model/head-file.ts';
import { readJsonFile } from '../../../engine/model/model-file-error.ts';
import { parseModelSpec } from '../../../engine/model/spec.ts';
import { Weights } from '../../../engine/model/weights.ts';
import { createPageListPolicy } from '../../../kvcache/page-lists/create.ts';
import type { AttentionSettings } from '../../../kvcache/page-lists/page-list.ts';
import { packagePath } from '../../../server/package.ts';
import { engineCases } from '../engine.cases.ts';
import { chunkOf, dense, listOf, picking, planOf, randomText, readText, relativeError, type Planner, type Text } from '../texts.ts';
import { writeTinyModel, type TinyModel } from '../../tiny-model.ts';

async function makeOnnx({ dir, spec }: TinyModel, pages: number, precision: OnnxPrecision): Promise<OnnxEngine> {
  const weights = await Weights.open(dir, spec);
  try {
    return await createOnnxEngine({ spec, weights, precision, threads: 1, pages, headOrder: null });
  } finally {
    weights.close();
  }
}

engineCases('onnx, fp32', (model, pages) => makeOnnx(model, pages, 'fp32'), { reference: 1e-5, picked: 1e-3, self: 1e-5 });
engineCases('onnx, int8', (model, pages) => makeOnnx(model, pages, 'int8'), { reference: 0.1, picked: 0.4, self: 0.08 });

const model = writeTinyModel();
afterAll(() => { model.remove(); });

test.each(['fp32', 'int8'] as const)('pages poisoned and used again give what fresh pages give, in %s', async (precision) => {
  const engine = await makeOnnx(model, 12, precision);
  const text = randomText(1, 600, { vocab: model.spec.vocab });
  const options = { planner: picking(3), chunkTokens: 128 };
  const read = async (pageTable: Int32Array) => {
    const rows = await readText(engine, { ...text, pageTable }, { ...options, to: 590 });
    const decoded = await readText(engine, { ...text, pageTable }, { ...options, from: 590, chunkTokens: 1 });
    return [...rows, ...decoded];
  };
  const fresh = await read(text.pageTable);
  for (const page of text.pageTable) engine.memory.poison(page, 120);
  expect(await read(text.pageTable.toReversed())).toEqual(fresh);
  await engine.close();
});

test.each([['fp32', 4], ['int8', 1]] as const)('KV memory in %s costs what its arrays hold', async (precision, bytes) => {
  const engine = await makeOnnx(model, 1, precision);
  const { layers, kvHeads, headDim } = model.spec;
  expect(engine.spec.kvBytesPerToken * 64).toBe(layers * kvHeads * headDim * bytes * (2 * 64 + 2 * 4));
  await engine.close();
});

test('int8 sequences decode in company as alone, to the bit: sampling from a seed must not depend on others', async () => {
  const engine = await makeOnnx(model, 16, 'int8');
  const texts = [203, 255, 193, 64].map((length, i) => randomText(i + 1, length + 1, { vocab: model.spec.vocab, firstPage: 4 * i }));
  for (const text of texts) await readText(engine, text, { to: text.tokens.length - 1 });
  const chunks = texts.map((text) => chunkOf(engine, text, { start: text.tokens.length - 1, end: text.tokens.length }));
  const alone: number[][] = [];
  for (const chunk of chunks) alone.push([...(await engine.run([chunk])).logits[0]!]);
  expect((await engine.run(chunks)).logits.map((row) => [...row!])).toEqual(alone);
  await engine.close();
});

// With more threads than heads the kernel would add up a single step's list by parts.
describe.each([1, 8])('int8 decode chunks of the bundled model give single steps to the bit, %i threads', (threads) => {
  const length = 1700;
  const settings: AttentionSettings = {
    attention: 'dense', tokenBudget: 512, sinkTokens: 128, localTokens: 256, streamingHeads: 0,
    selectionInterval: 64, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
  };
  let engine: OnnxEngine;
  beforeAll(async () => {
    engine = await bundledEngine(60, threads);
  });
  afterAll(() => engine.close());

  test.each<[string, Partial<AttentionSettings>]>([
    ['dense', {}],
    ['lserve', { attention: 'lserve' }],
    ['lserve, half of the heads streaming', { attention: 'lserve', streamingHeads: 0.5 }],
    ['streaming', { attention: 'streaming' }],
  ])('%s', async (_, changes) => {
    const policy = createPageListPolicy({ ...settings, ...changes }, engine.spec);
    const planner: Planner = (_, { pageTable }, start) => policy.plan(pageTable, start, 1, 'decode');
    const text = randomText(1, length, { vocab: engine.spec.vocab });
    const other = randomText(2, 1300, { vocab: engine.spec.vocab, firstPage: 28 });
    const companion = () => chunkOf(engine, other, { start: 1298, end: 1300 }, { planner, phase: 'decode' });
    for (const id of [1, 2]) engine.forget(id);
    await readText(engine, other, { to: 1298 });
    await readText(engine, text, { to: 1665 });
    const single = await readText(engine, text, { from: 1665, chunkTokens: 1, planner });
    for (const chunkTokens of [2, 5, 9, 17]) {
      engine.forget(1);
      const alone = await readText(engine, text, { from: 1665, chunkTokens, planner, phase: 'decode' });
      expect(firstDifference(alone, single)).toBeNull();
    }
    for (const id of [1, 2]) engine.forget(id);
    const chunk = chunkOf(engine, text, { start: 1665, end: 1682 }, { planner, phase: 'decode' });
    const together = await engine.run([companion(), chunk]);
    expect(firstDifference(together.logits[1]!, single.subarray(0, 17 * engine.spec.vocab))).toBeNull();
  });
});

describe('int8 decode over a long text, by blocks, on the bundled model', () => {
  const from = 8192 + 990;
  const to = from + 60; // Beyond the end of a block, at 9216.
  let engine: OnnxEngine;
  let single: Float32Array;
  const text = (id: 1 | 2) => randomText(id, to, { vocab: engine.spec.vocab, firstPage: id === 1 ? 0 : 146 });
  const decoded = (cuts: readonly number[], planner: Planner = dense) => readInCuts(engine, text(1), cuts, planner);

  beforeAll(async () => {
    engine = await bundledEngine(300);
    // Prefilled over short lists, which is quick: what counts is decoding over whatever lies there.
    for (const id of [1, 2] as const) await readText(engine, text(id), { to: from, chunkTokens: 256, planner: recentPages });
    single = await decoded(Array.from({ length: to - from + 1 }, (_, i) => from + i));
  }, 120_000);
  afterAll(() => engine.close());

  test('chunks that end where blocks end give single steps to the bit', async () => {
    const policy = createPageListPolicy({
      attention: 'dense', tokenBudget: 512, sinkTokens: 128, localTokens: 256, streamingHeads: 0,
      selectionInterval: 64, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
    }, engine.spec);
    for (const most of [2, 7, 17]) {
      const cuts = [from];
      for (let start = from; start < to; cuts.push(start)) start += Math.min(most, to - start, policy.maxDecodeTokens(start));
      expect(cuts).toContain(9216);
      expect(firstDifference(await decoded(cuts), single)).toBeNull();
    }
  });

  test('company changes nothing, to the bit', async () => {
    const chunks = ([1, 2] as const).map((id) => chunkOf(engine, text(id), { start: from, end: from + 5 }, { phase: 'decode' }));
    const alone: Float32Array[] = [];
    for (const chunk of chunks) alone.push((await engine.run([chunk])).logits[0]!);
    const together = (await engine.run(chunks)).logits;
    alone.forEach((rows, i) => { expect(firstDifference(together[i]!, rows)).toBeNull(); });
    expect(firstDifference(alone[0]!, single.subarray(0, 5 * engine.spec.vocab))).toBeNull();
  });

  test('what lay on pages before changes nothing', async () => {
    for (const page of text(1).pageTable.subarray(Math.ceil(from / 64))) engine.memory.poison(page, 100);
    expect(firstDifference(await decoded([from, from + 7, 9216, to]), single)).toBeNull();
  });

  test('it is what the other kernel gives, within the rounding of bytes', async () => {
    // The same list for two classes of heads: such a plan does not go by blocks.
    const apart: Planner = (...args) => {
      const plan = dense(...args);
      return { ...plan, classes: [plan.classes[0]!, plan.classes[0]!] };
    };
    const other = await decoded(Array.from({ length: to - from + 1 }, (_, i) => from + i), apart);
    expect(firstDifference(other, single)).not.toBeNull();
    expect(relativeError(single, other)).toBeLessThan(0.08);
  });
});

/** The chunk's own tokens and the four pages before them. */
const recentPages: Planner = (engine, { pageTable }, start) => {
  const used = Math.ceil(start / 64);
  const first = Math.max(0, used - 4);
  return planOf(engine, listOf(pageTable.subarray(first, used), start - 64 * first));
};

/** All rows of logits of the chunks between the cuts. */
async function readInCuts(engine: OnnxEngine, text: Text, cuts: readonly number[], planner: Planner): Promise<Float32Array> {
  const rows: Float32Array[] = [];
  for (let i = 0; i + 1 < cuts.length; i++) {
    rows.push(await readText(engine, text, { from: cuts[i]!, to: cuts[i + 1]!, planner, phase: 'decode' }));
  }
  const all = new Float32Array(rows.reduce((sum, { length }) => sum + length, 0));
  rows.reduce((at, part) => { all.set(part, at); return at + part.length; }, 0);
  return all;
}

async function bundledEngine(pages: number, threads = 1): Promise<OnnxEngine> {
  const dir = packagePath('models/longspan-16m');
  const spec = parseModelSpec(await readJsonFile(join(dir, 'config.json')));
  const weights = await Weights.open(dir, spec);
  try {
    return await createOnnxEngine({ spec, weights, precision: 'int8', threads, pages, headOrder: await readHeadOrder(dir, '', spec) });
  } finally {
    weights.close();
  }
}

function firstDifference(a: Float32Array, b: Float32Array): number | null {
  expect(a.length).toBe(b.length);
  const index = a.findIndex((value, i) => value !== b[i]);
  return index < 0 ? null : index;
}
