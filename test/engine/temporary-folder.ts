/**
 * A folder that lives as long as a test file. Knows nothing of its content. Called by engine tests.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** -> makes a fresh folder at each call; all are deleted after the file's tests. */
export function useTemporaryFolders(): () => string {
  const made: string[] = [];
  afterAll(() => {
    for (const dir of made) rmSync(dir, { recursive: true, force: true });
  });
  return () => {
    const dir = mkdtempSync(join(tmpdir(), 'longspan-test-'));
    made.push(dir);
    return dir;
  };
}
