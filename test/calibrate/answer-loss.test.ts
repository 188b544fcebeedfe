// What answers lose when heads stream: the onnx engine by pages, shared prefill and spans, against float64 over whole texts.
import { afterAll, expect, test } from 'vitest';
import { AnswerLoss, harmOf } from '../../calibrate/answer-loss.ts';
import type { TokenizedDocument } from '../../calibrate/tokens.ts';
import { Weights } from '../../engine/model/weights.ts';
import { createOnnxEngine } from '../../engine/onnx/onnx-engine.ts';
import { pagesFor } from '../../kvcache/page-lists/lists.ts';
import { randomText } from '../engine/texts.ts';
import { writeTinyModel, type TinyModel } from '../tiny-model.ts';
import { plainLosses } from './plain-loss.ts';

const REACH = { sinkTokens: 64, windowTokens: 64 };
const TOKENS = 420;
const models: TinyModel[] = [];
afterAll(() => { for (const model of models) model.remove(); });

function documentOf(seed: number, vocab: number): TokenizedDocument {
  const { tokens } = randomText(seed, TOKENS, { vocab });
  return {
    shared: tokens.slice(0, 350),
    asked: [
      { kind: 'needle', tokens: tokens.slice(350, 370), answerFrom: 15, countedFrom: 19 },
      { kind: 'multi-key', tokens: tokens.slice(370, 400), answerFrom: 29, countedFrom: 29 },
      { kind: 'quote', tokens: tokens.slice(400), answerFrom: 5, countedFrom: 5 },
    ],
  };
}

async function lossOf({ dir, spec }: TinyModel, documents: readonly TokenizedDocument[], heads: readonly number[]) {
  const weights = await Weights.open(dir, spec);
  const engine = await createOnnxEngine({ spec, weights, precision: 'fp32', threads: 1, pages: pagesFor(TOKENS), headOrder: null });
  weights.close();
  try {
    return await new AnswerLoss(engine, documents, REACH).of(heads);
  } finally {
    await engine.close();
  }
}

test.each([[[]], [[0]], [[1, 2]], [[0, 1, 2, 3]]])('heads %j stream: losses are those of float64 with masks, kind by kind', async (heads) => {
  const model = writeTinyModel({ vocab: 8 });
  models.push(model);
  const documents = [documentOf(1, 8), documentOf(2, 8)];
  const [losses, plain] = [await lossOf(model, documents, heads), await plainLosses(model, documents, { heads, ...REACH })];
  expect([...losses.keys()]).toEqual(['needle', 'multi-key', 'quote', 'continuation']);
  // Fifteen tokens of chance: wrong, and no more than that.
  expect(losses.get('quote')).toBe(5);
  expect(losses.get('needle')).toBeLessThan(5);
  for (const [kind, loss] of losses) expect(loss).toBeCloseTo(plain.get(kind)!, 4);
});

test('streaming changes what is measured', async () => {
  const model = writeTinyModel({ vocab: 8 });
  models.push(model);
  const [dense, all] = [await lossOf(model, [documentOf(1, 8)], []), await lossOf(model, [documentOf(1, 8)], [0, 1, 2, 3])];
  for (const [kind, loss] of dense) if (kind !== 'quote') expect(Math.abs(loss - all.get(kind)!)).toBeGreaterThan(1e-4);
});

test('harm is the mean over kinds of what is lost, and gains do not count', () => {
  const dense = new Map([['needle', 1], ['quote', 2]] as const);
  expect(harmOf(new Map([['needle', 1.5], ['quote', 1]] as const), dense)).toBe(0.25);
  expect(harmOf(dense, dense)).toBe(0);
});
