/**
 * From kernel sources to cubins, with a cache on disk: a second start compiles nothing. A cubin's key is all that
 * it depends on: source, headers, options, architecture and the compiler's version. Knows no kernels. Called by
 * kernels.ts.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { KernelSource, Nvrtc } from './ffi/nvrtc.ts';

/** What the compiler needs of NVRTC: a test gives another. */
export type CubinMaker = Pick<Nvrtc, 'version' | 'compile'>;

export class Compiler {
  /** Cubins that were compiled and not found in the cache. */
  numCompiled = 0;
  readonly #maker: CubinMaker;
  readonly #architecture: string;
  readonly #folder: string;

  constructor(maker: CubinMaker, { architecture, folder = cacheFolder() }: { architecture: string; folder?: string }) {
    this.#maker = maker;
    this.#architecture = architecture;
    this.#folder = folder;
  }

  /** `defines`: macros, as { HEAD_DIM: 128 }. -> cubin. Throws KernelCompileError. */
  compile(source: KernelSource, defines: Readonly<Record<string, string | number>>): Uint8Array {
    const options = [
      `--gpu-architecture=${this.#architecture}`, '-default-device', '--std=c++17',
      ...Object.entries(defines).map(([name, value]) => `-D${name}=${value}`),
    ];
    const path = join(this.#folder, `${source.name.replace(/\.cu$/, '')}-${this.#keyOf(source, options)}.cubin`);
    const kept = readIfThere(path);
    if (kept !== null) return kept;
    const cubin = this.#maker.compile(source, options);
    this.numCompiled++;
    this.#keep(path, cubin);
    return cubin;
  }

  #keyOf({ name, text, headers }: KernelSource, options: readonly string[]): string {
    const parts = [this.#maker.version, name, text, ...[...headers].flat(), ...options];
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 24);
  }

  /** Under another name first: another process may read at the same time. A cache that cannot be written costs time only. */
  #keep(path: string, cubin: Uint8Array): void {
    try {
      mkdirSync(this.#folder, { recursive: true });
      const temporary = `${path}.${process.pid}`;
      writeFileSync(temporary, cubin);
      renameSync(temporary, path);
    } catch (error) {
      process.emitWarning(`compiled kernels cannot be kept in ${this.#folder}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

function cacheFolder(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'longspan', 'kernels');
}

function readIfThere(path: string): Uint8Array | null {
  try {
    return readFileSync(path);
  } catch {
    return null;
  }
}
