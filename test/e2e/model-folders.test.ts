// Folders as people have them: the Hugging Face cache, whose folders hold links and are named by commit, a link to
// such a folder, and a path that ends with a slash.
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { realServer } from './real-server.ts';

const fixture = join(import.meta.dirname, '../fixtures/hf/llama-mha-bias');
const REPOSITORY = 'models--some--llama';

/** ROOT/models--some--llama/snapshots/0a1b with links to ../../blobs; returns ROOT. */
function writeCache(): string {
  const root = mkdtempSync(join(tmpdir(), 'cache-'));
  onTestFinished(() => { rmSync(root, { recursive: true }); });
  const [blobs, snapshot] = [join(root, REPOSITORY, 'blobs'), join(root, REPOSITORY, 'snapshots/0a1b')];
  for (const folder of [blobs, snapshot]) mkdirSync(folder, { recursive: true });
  readdirSync(fixture).forEach((file, i) => {
    copyFileSync(join(fixture, file), join(blobs, `hash${i}`));
    symlinkSync(`../../blobs/hash${i}`, join(snapshot, file));
  });
  symlinkSync(join(REPOSITORY, 'snapshots/0a1b'), join(root, 'mine'));
  return root;
}

it.each([
  ['a snapshot in the cache', `${REPOSITORY}/snapshots/0a1b`, 'some/llama'],
  ['a link to a snapshot, with a slash at the end', 'mine/', 'mine'],
])('serves %s', async (_, path, name) => {
  const server = await realServer('--engine', 'onnx', '--precision', 'fp32', '--kv-tokens', '1024', '--model', join(writeCache(), path));
  onTestFinished(() => server.close());
  expect((await server.app.inject(`/v1/models/${name}`)).json()).toMatchObject({ id: name });
  await server.post('/v1/completions', { model: name, prompt: [1, 2, 3], max_tokens: 2 });
});
