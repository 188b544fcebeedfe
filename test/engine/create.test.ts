// From options to an engine, and the sentences that an operator reads when there is none.
import { constants } from 'node:buffer';
import { copyFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { whyNoCuda } from '../../engine/cuda/availability.ts';
import { createEngine, settleOptions, type CreateEngineOptions } from '../../engine/create.ts';
import { UnsupportedModelError } from '../../engine/engine.ts';
import { writeTinyModel } from '../tiny-model.ts';
import { useTemporaryFolders } from './temporary-folder.ts';

const newFolder = useTemporaryFolders();
const model = writeTinyModel();
afterAll(() => { model.remove(); });

const options: CreateEngineOptions = {
  engine: 'reference', model: model.dir, precision: 'auto', kvPrecision: 'auto', threads: 1, kvTokens: 1000, maxModelLen: 0, headFile: '', fakeStepMs: 0,
  maxSequences: 4, stepTokens: 512, cudaLibraries: '', cudaKernels: 'plain',
};

const noCuda = whyNoCuda({ folder: '', environment: process.env });

test.each([['auto', noCuda === null ? 'cuda' : 'onnx'], ['onnx', 'onnx'], ['reference', 'reference'], ['fake', 'fake']] as const)('%s makes the %s engine', async (engine, name) => {
  const made = await createEngine({ ...options, engine });
  expect(made.spec).toMatchObject({ engine: name, vocab: 96, layers: 2, kvHeads: 2, headOrder: null });
  expect(made.pages).toBe(16);
  await made.close();
});

test('a precision of the CPU is served by the CPU, whatever there is beside it', async () => {
  expect(await settleOptions({ ...options, engine: 'auto', precision: 'fp32' })).toMatchObject({ engine: 'onnx' });
});

test('a step of 0 tokens is what suits the engine', async () => {
  const stepTokens = async (engine: CreateEngineOptions['engine'], asked: number) => (await settleOptions({ ...options, engine, stepTokens: asked })).stepTokens;
  expect([await stepTokens('onnx', 0), await stepTokens('cuda', 0), await stepTokens('cuda', 700)]).toEqual([512, 8192, 700]);
});

describe('KV memory that is not given', () => {
  const pages = async (change: Partial<CreateEngineOptions>) => {
    const engine = await createEngine({ ...options, kvTokens: 0, ...change });
    await engine.close();
    return engine.pages;
  };

  test('holds two texts of full length where memory allows', async () => {
    expect(await pages({})).toBe(2 * 4096 / 64);
    expect(await pages({ maxModelLen: 2048 })).toBe(2 * 2048 / 64);
  });

  test('holds more for the fake engine, whose pages cost nothing', async () => {
    expect(await pages({ engine: 'fake' })).toBe(65_536);
  });
});

test('more KV memory than one array can hold is refused', async () => {
  const most = constants.MAX_LENGTH / (2 * 2 * 64 * 16) - 256;
  await expect(createEngine({ ...options, engine: 'onnx', kvTokens: 2 ** 50 })).rejects.toThrow(
    new UnsupportedModelError(`KV memory of ${2 ** 50} tokens is more than the engine can have for this model: ${Math.floor(most) * 64}.`));
});

test('the fake engine takes the context that is asked for, else a million tokens', async () => {
  const context = async (maxModelLen: number) => (await createEngine({ ...options, engine: 'fake', maxModelLen })).spec.contextLength;
  expect([await context(0), await context(5000)]).toEqual([1_048_576, 5000]);
});

test('the head file reaches the engine', async () => {
  const headFile = join(newFolder(), 'my-heads.json');
  writeFileSync(headFile, JSON.stringify({ order: [[1, 1], [0, 0], [1, 0], [0, 1]] }));
  const engine = await createEngine({ ...options, headFile });
  expect(engine.spec.headOrder).toEqual(Int32Array.of(3, 0, 2, 1));
});

describe('is refused with a sentence', () => {
  test.each<[string, Partial<CreateEngineOptions>, RegExp]>([
    ['a precision that the GPU has not', { engine: 'cuda', precision: 'int8' }, /does not support precision 'int8'; supported are bf16, fp16 and fp8\.$/],
    ['KV memory in 16 bits of another kind', { engine: 'cuda', kvPrecision: 'bf16' }, /computes in fp16 and cannot keep KV memory in bf16; --kv-precision fp16, fp8 or int8 can\.$/],
    ['KV memory that the CPU has not', { engine: 'onnx', kvPrecision: 'fp8' }, /keeps KV memory in int8 with --precision int8; --kv-precision fp8 is for the cuda engine\.$/],
    ['a precision of another engine', { engine: 'onnx', precision: 'fp8' }, /does not support precision 'fp8'; supported are int8 and fp32\.$/],
  ])('%s', async (_, change, message) => {
    await expect(createEngine({ ...options, ...change })).rejects.toThrow(UnsupportedModelError);
    await expect(createEngine({ ...options, ...change })).rejects.toThrow(message);
  });

  test.skipIf(noCuda === null)('cuda on a machine without it, with what is missing and where it was looked for', async () => {
    const made = createEngine({ ...options, engine: 'cuda', cudaLibraries: '/nowhere/at/all' });
    await expect(made).rejects.toThrow(UnsupportedModelError);
    await expect(made).rejects.toThrow(/libcuda\.so, the driver of NVIDIA GPUs, was not found.*looked into \/nowhere\/at\/all.*--cuda-libraries|finds no device/);
  });

  test('a folder without a model, by any engine', async () => {
    for (const engine of ['onnx', 'reference', 'fake'] as const) {
      await expect(createEngine({ ...options, engine, model: newFolder() })).rejects.toThrow(/config\.json: does not exist/);
    }
  });

  test('a truncated model', async () => {
    const dir = newFolder();
    for (const name of ['config.json', 'model.safetensors']) copyFileSync(join(model.dir, name), join(dir, name));
    truncateSync(join(dir, 'model.safetensors'), 5000);
    await expect(createEngine({ ...options, model: dir })).rejects.toThrow(/model\.safetensors: is truncated/);
  });
});
