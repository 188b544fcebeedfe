// From measured masses to heads.json, and where it lies.
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { describeHeads, formatHeadFile, writeHeadFile } from '../../calibrate/head-file.ts';
import { headFilePlaces, readHeadOrder } from '../../engine/model/head-file.ts';
import { parseModelSpec } from '../../engine/model/spec.ts';
import { useTemporaryFolders } from '../engine/temporary-folder.ts';

const newFolder = useTemporaryFolders();
afterEach(() => { vi.unstubAllEnvs(); });

const spec = parseModelSpec({
  model_type: 'llama', hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
  vocab_size: 512, max_position_embeddings: 4096,
});
const about = { method: 'mass', data: 'prompts' };
const measured = { kvHeads: 2, lengths: [4000, 8000], mass: [Float64Array.of(0.3, 0.1, 0.25, 0.1), Float64Array.of(0.5, 0.3, 0.05, 0.3)], chosen: null };

test('heads are ordered by mean mass, equal ones as they stand in the model', () => {
  expect(describeHeads(measured, about)).toEqual({
    ...about, lengths: [4000, 8000],
    order: [[1, 0], [0, 1], [1, 1], [0, 0]],
    mass: [0.15, 0.2, 0.2, 0.4],
    massAtLength: [[0.25, 0.1, 0.1, 0.3], [0.05, 0.3, 0.3, 0.5]],
  });
});

test('differences below the figures of the file decide nothing', () => {
  const mass = [Float64Array.of(0.2, 0.100_000_2, 0.1, 0.1)];
  expect(describeHeads({ kvHeads: 2, lengths: [4000], mass, chosen: null }, about).order).toEqual([[0, 1], [1, 0], [1, 1], [0, 0]]);
});

test('where an order was chosen it goes before that of the masses, and the file says what each head did', () => {
  const chosen = { order: [3, 0, 2, 1], harm: [0, null, 0.000_04, 1.234_56], evaluations: 9 };
  const file = describeHeads({ ...measured, chosen }, about);
  expect(file).toEqual({
    ...about, lengths: [4000, 8000],
    order: [[1, 1], [0, 0], [1, 0], [0, 1]],
    harm: [0, null, 0, 1.2346],
    mass: [0.2, 0.4, 0.15, 0.2],
    massAtLength: [[0.1, 0.3, 0.25, 0.1], [0.3, 0.5, 0.05, 0.3]],
  });
  expect(JSON.parse(formatHeadFile(file))).toEqual(file);
});

test('the file says what was measured, and gives its order to the engine', async () => {
  const dir = newFolder();
  const file = describeHeads(measured, about);
  const place = await writeHeadFile(formatHeadFile(file), headFilePlaces(dir));
  expect(place).toBe(join(dir, 'heads.json'));
  expect(JSON.parse(readFileSync(place, 'utf8'))).toEqual(file);
  expect(await readHeadOrder(dir, '', spec)).toEqual(Int32Array.of(2, 1, 3, 0));
});

// Root may write anywhere.
test.skipIf(process.getuid?.() === 0)('a model folder that cannot be written to leaves it to the cache folder, by permissions', async () => {
  const dir = newFolder();
  chmodSync(dir, 0o555);
  vi.stubEnv('XDG_CACHE_HOME', newFolder());
  expect(await writeHeadFile(formatHeadFile(describeHeads(measured, about)), headFilePlaces(dir))).toContain('longspan/heads');
});

test('what lies in the cache folder is found, and what lies beside the model goes first', async () => {
  const dir = newFolder();
  vi.stubEnv('XDG_CACHE_HOME', newFolder());
  const [beside, cached] = headFilePlaces(dir);
  const write = (order: readonly number[], place: string) =>
    writeHeadFile(JSON.stringify({ order: order.map((head) => [Math.floor(head / 2), head % 2]) }), [place]);
  await write([3, 2, 1, 0], cached);
  expect(await readHeadOrder(dir, '', spec)).toEqual(Int32Array.of(3, 2, 1, 0));
  await write([0, 1, 2, 3], beside);
  expect(await readHeadOrder(dir, '', spec)).toEqual(Int32Array.of(0, 1, 2, 3));
});

test('models of one name have files of their own in the cache folder', () => {
  expect(headFilePlaces('/some/model')[1]).not.toBe(headFilePlaces('/other/model')[1]);
});

test('a place that fails for another reason is an error, not a reason to write elsewhere', async () => {
  const dir = newFolder();
  const [beside, cached] = [join(dir, 'heads.json'), join(dir, 'cache', 'heads.json')];
  mkdirSync(beside);
  await expect(writeHeadFile('{}', [beside, cached])).rejects.toThrow(/EISDIR/);
  expect(existsSync(cached)).toBe(false);
});
