// The draft model beside the served one: loaded, or refused with a sentence.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createEngines, type CreateEnginesOptions } from '../../engine/create-engines.ts';
import { writeTinyModel, type TinyModel } from '../tiny-model.ts';

const vocab = { a: 0, b: 1, c: 2 };
const models: TinyModel[] = [];
afterAll(() => { for (const model of models) model.remove(); });

function modelWith(tokens: Record<string, number>, size = 96): string {
  const model = writeTinyModel({ vocab: size });
  models.push(model);
  writeFileSync(join(model.dir, 'tokenizer.json'), JSON.stringify({ model: { vocab: tokens }, added_tokens: [{ content: '<end>', id: 3 }] }));
  return model.dir;
}

async function load(draftModel: string) {
  const options: CreateEnginesOptions = {
    engine: 'reference', model: modelWith(vocab), draftModel, precision: 'auto', kvPrecision: 'auto', threads: 1, kvTokens: 640, maxModelLen: 0, headFile: '',
    fakeStepMs: 0, maxSequences: 4, stepTokens: 512, cudaLibraries: '', cudaKernels: 'plain',
  };
  return (await createEngines(options)).draftEngine;
}

test('none is asked for, and there is none', async () => {
  expect(await load('')).toBeNull();
});

test('one with the same tokens drafts, with KV memory of its own size', async () => {
  expect(await load(modelWith({ ...vocab }))).toMatchObject({ pages: 1024 });
});

test('one with other tokens is refused, and the sentence names the first', async () => {
  await expect(load(modelWith({ a: 0, b: 2, c: 1 }))).rejects.toThrow(/another vocabulary than the served model: 'b' is token 2 there and 1 here/);
  await expect(load(modelWith({ a: 0, b: 1 }))).rejects.toThrow(/'c' is token of no number there and 2 here/);
});

test('one with more rows of logits is refused', async () => {
  await expect(load(modelWith({ ...vocab }, 128))).rejects.toThrow(/has 128 rows of logits and the served model 96/);
});
