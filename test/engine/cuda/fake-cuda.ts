/**
 * Builds the CUDA of fake-cuda.c, for tests of the calls on machines without a device. Called by the tests of
 * engine/cuda/; without a C compiler they are skipped, and say so.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SearchSettings } from '../../../engine/cuda/ffi/library-search.ts';

export interface FakeCuda {
  readonly folder: string;
  readonly settings: SearchSettings;
  remove(): void;
}

/** null without a C compiler, or where koffi cannot be loaded. */
export function buildFakeCuda(): FakeCuda | null {
  const folder = mkdtempSync(join(tmpdir(), 'longspan-fake-cuda-'));
  const library = join(folder, 'libcuda.so.1');
  const built = spawnSync('cc', ['-shared', '-fPIC', '-O1', '-w', '-o', library, join(import.meta.dirname, 'fake-cuda.c')], { encoding: 'utf8' });
  if (built.error !== undefined) {
    process.stderr.write(`skipped: the calls of CUDA libraries need a C compiler for their fake (${built.error.message})\n`);
    return null;
  }
  if (built.status !== 0) throw new Error(`fake-cuda.c does not compile: ${built.stderr}`);
  for (const name of ['libnvrtc.so.13', 'libcublasLt.so.13']) copyFileSync(library, join(folder, name));
  return { folder, settings: { folder, environment: {} }, remove: () => { rmSync(folder, { recursive: true }); } };
}
