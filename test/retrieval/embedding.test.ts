import { copyFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Graph } from '../../engine/onnx/graph.ts';
import { EmbeddingRanker } from '../../retrieval/embedding.ts';
import { modelFolder } from '../tokenizer/model-folder.ts';
import { WIDTH, WORDS, embeddingFolder, vectors } from './embedding-model.ts';

let folder: string;
let ranker: EmbeddingRanker;
beforeAll(async () => {
  folder = await embeddingFolder();
  ranker = await EmbeddingRanker.open(folder, { threads: 1 });
});
afterAll(() => rm(folder, { recursive: true }));

/** The mean of the vectors of a text's words, plainly. */
function meanOf(text: string): number[] {
  const ids = text.split(' ').map((word) => Math.max(0, WORDS.indexOf(word)));
  return Array.from({ length: WIDTH }, (_, i) => ids.reduce((sum, id) => sum + vectors[id * WIDTH + i]!, 0) / ids.length);
}

function cosine(a: number[], b: number[]): number {
  const product = (x: number[], y: number[]) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return product(a, b) / Math.sqrt(product(a, a) * product(b, b));
}

test('scores are cosines of mean vectors, whatever else is in the batch', async () => {
  const chunks = Array.from({ length: 40 }, (_, i) => WORDS.slice(2).filter((_, bit) => ((i * 7 + 1) >> bit) % 2 === 1).join(' '));
  const scores = await ranker.rank('who lantern', chunks);
  chunks.forEach((chunk, i) => { expect(scores[i]).toBeCloseTo(cosine(meanOf('who lantern'), meanOf(chunk)), 5); });
});

test('the question itself scores 1, and a text without tokens 0', async () => {
  const [same, empty] = await ranker.rank('river of night', ['river of night', '']);
  expect(same).toBeCloseTo(1, 5);
  expect(empty).toBe(0);
});

test('of a text that is too long the beginning counts', async () => {
  const long = `${'apple '.repeat(600)}${'river '.repeat(600)}`.trim();
  const [score] = await ranker.rank('apple', [long]);
  expect(score).toBeGreaterThan(0.999);
});

test('a folder without a file, or with another kind of model, is refused with a sentence', async () => {
  const bare = await modelFolder({});
  await expect(EmbeddingRanker.open(bare, { threads: 1 })).rejects.toThrow(/model\.onnx is missing/);
  await writeFile(join(bare, 'model.onnx'), 'no model');
  await expect(EmbeddingRanker.open(bare, { threads: 1 })).rejects.toThrow(/tokenizer\.json is missing/);
  await writeFile(join(bare, 'tokenizer.json'), '{ "model": { "type": "WordPiece", "vocab": {} } }');
  await expect(EmbeddingRanker.open(bare, { threads: 1 })).rejects.toThrow(/tokenizer\.json cannot be used/);
  await copyFile(join(folder, 'tokenizer.json'), join(bare, 'tokenizer.json'));
  await expect(EmbeddingRanker.open(bare, { threads: 1 })).rejects.toThrow(/model\.onnx cannot be loaded/);
  const graph = new Graph();
  graph.output('out', graph.input('pixels', 'float32', [1]), 'float32', [1]);
  await writeFile(join(bare, 'model.onnx'), graph.model());
  await expect(EmbeddingRanker.open(bare, { threads: 1 })).rejects.toThrow(/no text embedding model.*it takes pixels/);
  await rm(bare, { recursive: true });
});
