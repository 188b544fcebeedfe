/**
 * The head file: which KV heads of a model can do with sinks and a window, found offline (as DuoAttention's
 * gates are, arXiv 2410.10819; `npm run calibrate` writes it). Knows no policy: it gives an order, requests say
 * how many heads to stream. Called by engine/create.ts; calibrate/ asks it where to write.
 */
import { createHash } from 'node:crypto';
import { access } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { ModelFileError, readJsonFile } from './model-file-error.ts';
import type { ModelSpec } from './spec.ts';

const HEAD_FILE = 'heads.json';

/**
 * Where a model's head file may lie, first choice first: beside the model, and for folders that cannot be written
 * to a cache folder, under the name of the model's folder and a hash of its path.
 */
export function headFilePlaces(modelDir: string): readonly [string, string] {
  const dir = resolve(modelDir);
  const hash = createHash('sha256').update(dir).digest('hex').slice(0, 8);
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return [join(dir, HEAD_FILE), join(cache, 'longspan', 'heads', `${basename(dir)}-${hash}.json`)];
}

/**
 * KV heads (layer * kvHeads + head), most streaming-like first; null when the model has no head file.
 * `path` '' looks where headFilePlaces says. The file: { "order": [[layer, head], ...], ... }. Throws ModelFileError.
 */
export async function readHeadOrder(modelDir: string, path: string, spec: ModelSpec): Promise<Int32Array | null> {
  const file = path === '' ? await firstThatExists(headFilePlaces(modelDir)) : path;
  if (file === null) return null;
  const content = await readJsonFile(file);
  const order: unknown = typeof content === 'object' && content !== null && 'order' in content ? content.order : null;
  return parseOrder(file, order, spec);
}

function parseOrder(file: string, order: unknown, spec: ModelSpec): Int32Array {
  const total = spec.layers * spec.kvHeads;
  if (!Array.isArray(order) || order.length !== total) {
    const got = Array.isArray(order) ? `${order.length} entries` : 'no list';
    throw new ModelFileError(file, `order must list the model's ${total} KV heads as [layer, head], got ${got}`);
  }
  const heads = Int32Array.from(order, (entry: unknown) => parseHead(file, entry, spec));
  if (new Set(heads).size !== total) throw new ModelFileError(file, 'order must name each KV head once');
  return heads;
}

function parseHead(file: string, entry: unknown, { layers, kvHeads }: ModelSpec): number {
  const [layer, head] = Array.isArray(entry) && entry.length === 2 ? entry as unknown[] : [];
  if (!isIndex(layer, layers) || !isIndex(head, kvHeads)) {
    throw new ModelFileError(file, `order has the entry ${JSON.stringify(entry)}; entries are [layer, head] below [${layers}, ${kvHeads}]`);
  }
  return layer * kvHeads + head;
}

function isIndex(value: unknown, end: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < end;
}

async function firstThatExists(files: readonly string[]): Promise<string | null> {
  for (const file of files) {
    if (await access(file).then(() => true, () => false)) return file;
  }
  return null;
}
