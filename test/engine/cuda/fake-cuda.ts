/**
 * Builds the CUDA of fake-cuda.c, for tests of the calls on machines without a device. Called by the tests of
 * engine/cuda/; without a C compiler they are skipped, and say so.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SearchSettings } from '../../../engine/cuda/ffi/library-search.ts';
import { SharedLibrary } from '../../../engine/cuda/ffi/shared-library.ts';

export interface FakeCuda {
  readonly folder: string;
  readonly settings: SearchSettings;
  /** Sets a variable that the fake reads: FAKE_CUDA_MIB, FAKE_CUDA_DEVICES, FAKE_CUDA_MAJOR. */
  set(name: string, value: string): void;
  remove(): void;
}

const SOURCES = ['fake-cuda.c', 'fake-kernels.c'];

/** null without a C compiler, or where koffi cannot be loaded. */
export function buildFakeCuda(): FakeCuda | null {
  const folder = mkdtempSync(join(tmpdir(), 'longspan-fake-cuda-'));
  const library = join(folder, 'libcuda.so.1');
  const built = spawnSync('cc', ['-shared', '-fPIC', '-O2', '-w', '-o', library, ...SOURCES.map((name) => join(import.meta.dirname, name)), '-lm'], { encoding: 'utf8' });
  if (built.error !== undefined) {
    process.stderr.write(`skipped: the calls of CUDA libraries need a C compiler for their fake (${built.error.message})\n`);
    return null;
  }
  if (built.status !== 0) throw new Error(`${SOURCES.join(' and ')} do not compile: ${built.stderr}`);
  // Links, so that all three are one library in one process: a recorded run holds kernels and products.
  for (const name of ['libnvrtc.so.13', 'libcublasLt.so.13']) symlinkSync(library, join(folder, name));
  const setenv = new SharedLibrary(library).function('int setenv(const char *name, const char *value, int overwrite)');
  return {
    folder, settings: { folder, environment: {} },
    set: (name, value) => { setenv(name, value, 1); },
    remove: () => { rmSync(folder, { recursive: true }); },
  };
}
