// Checkpoints: types, shards, links, names, and what is missing from them.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { bfloat16ToFloat32, float16Table, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../../../engine/model/float-convert.ts';
import { ModelFileError } from '../../../engine/model/model-file-error.ts';
import { parseModelSpec, type ModelSpec } from '../../../engine/model/spec.ts';
import { Weights } from '../../../engine/model/weights.ts';
import { writeSafetensors, type FloatType } from '../../safetensors-writer.ts';
import { writeTinyModel } from '../../tiny-model.ts';
import { useTemporaryFolders } from '../temporary-folder.ts';

const newFolder = useTemporaryFolders();
const tiny = writeTinyModel();
afterAll(() => { tiny.remove(); });

const sharded = join(import.meta.dirname, '../../fixtures/hf/llama-mha-bias');
const shardedSpec = parseModelSpec(JSON.parse(readFileSync(join(sharded, 'config.json'), 'utf8')));
const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const SHARD_2 = 'model-00002-of-00003.safetensors';

/** A copy that a test may spoil. */
function copyOf(dir: string): string {
  const copy = newFolder();
  for (const name of readdirSync(dir)) copyFileSync(join(dir, name), join(copy, name));
  return copy;
}

async function tensorsOf(dir: string, spec: ModelSpec): Promise<Record<string, number[]>> {
  const weights = await Weights.open(dir, spec);
  const names = ['model.embed_tokens.weight', 'model.layers.1.mlp.up_proj.weight', 'model.norm.weight'];
  const values = Object.fromEntries(names.map((name) => [name, [...weights.float32(name)]]));
  weights.close();
  return values;
}

describe('number types', () => {
  test('every bfloat16 and float16 comes back from float32 as it was', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
    const finite = (exponent: number) => all.filter((bits) => (bits & exponent) !== exponent || (bits & ~(exponent | 0x8000)) === 0);
    expect(float32ToBfloat16(bfloat16ToFloat32(finite(0x7f80)))).toEqual(finite(0x7f80));
    expect(float32ToFloat16(float16ToFloat32(finite(0x7c00), float16Table()))).toEqual(finite(0x7c00));
    expect(Number.isNaN(bfloat16ToFloat32(float32ToBfloat16(Float32Array.of(NaN)))[0])).toBe(true);
    expect(Number.isNaN(float16ToFloat32(float32ToFloat16(Float32Array.of(NaN)), float16Table())[0])).toBe(true);
  });

  test('numbers between two go to the nearer one, and from the middle to the even one', () => {
    const rounded = (values: number[]) => [...bfloat16ToFloat32(float32ToBfloat16(Float32Array.from(values)))];
    expect(rounded([1 + 2 ** -9, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -1 - 2 ** -8])).toEqual([1, 1, 1 + 2 ** -6, 1 + 2 ** -7, -1]);
    const half = (values: number[]) => [...float16ToFloat32(float32ToFloat16(Float32Array.from(values)), float16Table())];
    expect(half([1 + 2 ** -11, 1 + 3 * 2 ** -11, 2047.5, 2049, 65519, 65520, 2 ** -25, 3 * 2 ** -26, -(2 ** -24)]))
      .toEqual([1, 1 + 2 ** -9, 2048, 2048, 65504, Infinity, 0, 2 ** -24, -(2 ** -24)]);
  });

  test.each<[FloatType, 'bf16' | 'fp16']>([['F32', 'bf16'], ['F32', 'fp16'], ['BF16', 'bf16'], ['BF16', 'fp16'], ['F16', 'fp16'], ['F16', 'bf16']])('%s in pieces of %s', async (type, half) => {
    const model = writeTinyModel({ type });
    const weights = await Weights.open(model.dir, model.spec);
    const name = 'model.layers.1.mlp.up_proj.weight';
    const whole = weights.float32(name);
    const pieces = new Uint16Array(whole.length);
    for (let first = 0; first < pieces.length; first += 100) weights.half(name, half, pieces.subarray(first, first + 100), first);
    expect(pieces).toEqual(half === 'bf16' ? float32ToBfloat16(whole) : float32ToFloat16(whole));
    expect(() => { weights.half(name, half, new Uint16Array(2), whole.length - 1); }).toThrow(RangeError);
    weights.close();
    model.remove();
  });

  test('bfloat16 is the upper half of float32', () => {
    expect([...bfloat16ToFloat32(Uint16Array.of(0x3f80, 0xc040, 0x0000, 0x7f80, 0x0001))]).toEqual([1, -3, 0, Infinity, 2 ** -133]);
  });

  test('every float16, by the rule of IEEE 754', () => {
    const table = float16Table();
    const values = { 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 2 ** -14, 0x03ff: 1023 * 2 ** -24, 0x0001: 2 ** -24, 0x7c00: Infinity, 0xfc00: -Infinity, 0x3555: 0.333251953125 };
    for (const [bits, value] of Object.entries(values)) expect(table[Number(bits)]).toBe(value);
    expect(table[0x7e00]).toBeNaN();
    expect(table[0x8000]).toBe(-0);
    expect([...float16ToFloat32(Uint16Array.of(0x3c00, 0xc000), table)]).toEqual([1, -2]);
  });

  test.each<[FloatType, number]>([['F32', 0], ['BF16', 2 ** -7], ['F16', 2 ** -10]])('%s checkpoints read as float32', async (type, step) => {
    const model = writeTinyModel({ type });
    const [got, wanted] = [await tensorsOf(model.dir, model.spec), await tensorsOf(tiny.dir, tiny.spec)];
    model.remove();
    for (const [name, values] of Object.entries(wanted)) {
      // Rounding of the smallest normal float16 is absolute.
      values.forEach((value, i) => { expect(Math.abs(got[name]![i]! - value)).toBeLessThanOrEqual(Math.max(Math.abs(value) * step, step && 2 ** -14)); });
    }
  });
});

describe('a sound checkpoint', () => {
  test('gives fresh arrays and shapes', async () => {
    const weights = await Weights.open(tiny.dir, tiny.spec);
    const first = weights.float32('model.norm.weight');
    const wanted = [...first];
    first.fill(0);
    expect([...weights.float32('model.norm.weight')]).toEqual(wanted);
    expect(weights.shape('model.layers.0.mlp.down_proj.weight')).toEqual([32, 48]);
    expect(weights.has('model.layers.0.mlp.down_proj.bias')).toBe(false);
    expect(() => weights.float32('model.layers.9.mlp.up_proj.weight')).toThrow(/tensor model.layers.9.mlp.up_proj.weight is missing/);
    weights.close();
  });

  test('may be shards, in a folder of links as in the Hugging Face cache', async () => {
    const cache = newFolder();
    const snapshot = join(cache, 'snapshot');
    mkdirSync(snapshot);
    for (const name of readdirSync(sharded)) {
      copyFileSync(join(sharded, name), join(cache, `blob-${name}`));
      symlinkSync(join('..', `blob-${name}`), join(snapshot, name));
    }
    expect(await tensorsOf(snapshot, shardedSpec)).toEqual(await tensorsOf(sharded, shardedSpec));
  });

  test('may lack the prefix "model."', async () => {
    const dir = newFolder();
    const weights = await Weights.open(tiny.dir, tiny.spec);
    const names = Object.keys(JSON.parse(readHeader(join(tiny.dir, SINGLE))) as object);
    writeSafetensors(join(dir, SINGLE), names.map((name) => ({ name: name.replace('model.', ''), shape: weights.shape(name), values: weights.float32(name) })));
    weights.close();
    expect(await tensorsOf(dir, tiny.spec)).toEqual(await tensorsOf(tiny.dir, tiny.spec));
  });
});

describe('a broken checkpoint is refused', () => {
  test.each<[string, (dir: string) => void, RegExp]>([
    ['without weights', (dir) => { unlinkSync(join(dir, INDEX)); }, /holds neither model.safetensors nor model.safetensors.index.json/],
    ['with a shard missing', (dir) => { unlinkSync(join(dir, SHARD_2)); }, /model-00002-of-00003.safetensors: does not exist/],
    ['with a shard cut short', (dir) => { truncateSync(join(dir, SHARD_2), 100_000); }, /model-00002-of-00003.safetensors: is truncated/],
    ['with shards exchanged', (dir) => { renameSync(join(dir, SHARD_2), join(dir, 'model-00001-of-00003.safetensors')); copyFileSync(join(sharded, 'model-00001-of-00003.safetensors'), join(dir, SHARD_2)); }, /lacks tensor .*, which model.safetensors.index.json says it holds/],
    ['with an index that is not JSON', (dir) => { writeFileSync(join(dir, INDEX), '{"weight_map": {'); }, /index.json: is not valid JSON/],
    ['with an index without a map', (dir) => { writeFileSync(join(dir, INDEX), '{}'); }, /index.json: has no weight_map object/],
    ['with a shard outside the folder', (dir) => { writeFileSync(join(dir, INDEX), JSON.stringify({ weight_map: { x: '../x.safetensors' } })); }, /weight_map names "..\/x.safetensors" for tensor x, which is not a file of this folder/],
    ['with a shard that is no name', (dir) => { writeFileSync(join(dir, INDEX), JSON.stringify({ weight_map: { x: 7 } })); }, /weight_map names 7 for tensor x/],
  ])('%s', async (_, spoil, message) => {
    const dir = copyOf(sharded);
    spoil(dir);
    const opened = Weights.open(dir, shardedSpec);
    await expect(opened).rejects.toThrow(ModelFileError);
    await expect(opened).rejects.toThrow(message);
  });

  test.each<[string, Partial<ModelSpec>, RegExp]>([
    ['a missing layer', { layers: 3 }, /tensor model.layers.2.input_layernorm.weight is missing/],
    ['another vocabulary', { vocab: 100 }, /tensor model.embed_tokens.weight has shape \[96, 32\], config.json asks for \[100, 32\]/],
    ['other heads', { kvHeads: 1 }, /tensor model.layers.0.self_attn.k_proj.weight has shape \[32, 32\], config.json asks for \[16, 32\]/],
    ['norms that are not there', { headNorms: true }, /tensor model.layers.0.self_attn.q_norm.weight is missing/],
    ['biases that Qwen2 must have', { family: 'qwen2' }, /tensor model.layers.0.self_attn.q_proj.bias is missing/],
  ])('by a configuration with %s', async (_, change, message) => {
    await expect(Weights.open(tiny.dir, { ...tiny.spec, ...change })).rejects.toThrow(message);
  });

  test('without its head, unless that is tied', async () => {
    const tied = writeTinyModel({ tiedHead: true });
    await expect(Weights.open(tied.dir, { ...tied.spec, tiedHead: false })).rejects.toThrow(/tensor lm_head.weight is missing/);
    (await Weights.open(tied.dir, tied.spec)).close();
    tied.remove();
  });

  test('a weight that is not a float', async () => {
    const dir = copyOf(tiny.dir);
    const file = readFileSync(join(dir, SINGLE));
    writeFileSync(join(dir, SINGLE), file.toString('latin1').replace('"F32"', '"I32"'), 'latin1');
    await expect(Weights.open(dir, tiny.spec)).rejects.toThrow(/tensor model.embed_tokens.weight has type I32; supported are F32, F16 and BF16/);
  });

  test('a folder that does not exist', async () => {
    const dir = join(newFolder(), 'none');
    expect(existsSync(dir)).toBe(false);
    await expect(Weights.open(dir, tiny.spec)).rejects.toThrow(/none: does not exist/);
  });
});

function readHeader(path: string): string {
  const file = readFileSync(path);
  return file.toString('utf8', 8, 8 + Number(file.readBigUInt64LE(0)));
}
