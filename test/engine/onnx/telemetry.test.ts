import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packagePath } from '../../../server/package.ts';

let home = '';
beforeAll(async () => { home = await mkdtemp(join(tmpdir(), 'longspan-home-')); });
afterAll(() => rm(home, { recursive: true }));

/** Builds the engine in a process of its own, since the library decides at its first session. */
const program = `
  import { createEngine } from './engine/create.ts';
  const options = { engine: 'onnx', precision: 'int8', threads: 1, kvTokens: 1024, maxModelLen: 0, maxSequences: 1, stepTokens: 512, kvPrecision: 'auto', cudaLibraries: '', cudaKernels: 'plain', headFile: '', fakeStepMs: 0 };
  const engine = await createEngine({ ...options, model: './models/longspan-16m' });
  await engine.close();
  console.log('built and closed');`;

test('the runtime writes no device id and no event store into the home folder', async () => {
  const argv = ['--import', 'tsx', '--input-type=module', '--eval', program];
  const { stdout } = await promisify(execFile)(process.execPath, argv, {
    cwd: packagePath(''),
    // In CI the library keeps silent by itself.
    env: { ...process.env, CI: '', HOME: home, XDG_CACHE_HOME: join(home, '.cache'), XDG_CONFIG_HOME: join(home, '.config') },
  });
  expect(stdout).toContain('built and closed');
  expect(await readdir(home)).toEqual([]);
});
