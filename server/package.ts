/** Where the package lies and which version it is, from its package.json. Used by main.ts and routes/. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A path inside the package, such as models/longspan-16m. */
export function packagePath(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(packagePath('package.json'), 'utf8')) as { version: string };
  return version;
}
