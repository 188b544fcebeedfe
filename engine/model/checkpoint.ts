/**
 * A checkpoint folder: one safetensors file, or the shards that an index names, links followed (the Hugging
 * Face cache is a folder of links). Knows where each tensor lies, not what it means. Used by weights.ts.
 */
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ModelFileError, readJsonFile } from './model-file-error.ts';
import { SafetensorsFile, type TensorEntry } from './safetensors.ts';

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';

export interface LocatedTensor {
  readonly file: SafetensorsFile;
  readonly entry: TensorEntry;
}

export interface Checkpoint {
  /** Open files; whoever holds the checkpoint closes them. */
  readonly files: readonly SafetensorsFile[];
  /** By the name that the files use. */
  readonly tensors: ReadonlyMap<string, LocatedTensor>;
}

/** Opens the folder's one file or all its shards; throws ModelFileError. */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  const names = await readdir(dir).catch((error: unknown) => {
    throw ModelFileError.fromSystem(dir, error);
  });
  if (names.includes(SINGLE_FILE)) return openSingle(join(dir, SINGLE_FILE));
  if (names.includes(INDEX_FILE)) return openShards(dir, await readShardMap(join(dir, INDEX_FILE)));
  throw new ModelFileError(dir, `holds neither ${SINGLE_FILE} nor ${INDEX_FILE}; supported are checkpoints in safetensors format`);
}

function openSingle(path: string): Checkpoint {
  const file = new SafetensorsFile(path);
  return { files: [file], tensors: new Map([...file.tensors].map(([name, entry]) => [name, { file, entry }])) };
}

/** Tensor name -> shard file name, from the index. */
async function readShardMap(path: string): Promise<ReadonlyMap<string, string>> {
  const index = await readJsonFile(path);
  const map: unknown = typeof index === 'object' && index !== null && 'weight_map' in index ? index.weight_map : null;
  if (typeof map !== 'object' || map === null) throw new ModelFileError(path, 'has no weight_map object');
  return new Map(Object.entries(map).map(([name, shard]: [string, unknown]) => {
    if (typeof shard === 'string' && basename(shard) === shard) return [name, shard];
    throw new ModelFileError(path, `weight_map names ${JSON.stringify(shard)} for tensor ${name}, which is not a file of this folder`);
  }));
}

function openShards(dir: string, shardOf: ReadonlyMap<string, string>): Checkpoint {
  const files = new Map<string, SafetensorsFile>();
  try {
    for (const shard of new Set(shardOf.values())) files.set(shard, new SafetensorsFile(join(dir, shard)));
    return { files: [...files.values()], tensors: locate(shardOf, files) };
  } catch (error) {
    for (const file of files.values()) file.close();
    throw error;
  }
}

function locate(shardOf: ReadonlyMap<string, string>, files: ReadonlyMap<string, SafetensorsFile>): ReadonlyMap<string, LocatedTensor> {
  return new Map([...shardOf].map(([name, shard]) => {
    const file = files.get(shard)!;
    const entry = file.tensors.get(name);
    if (entry === undefined) throw new ModelFileError(file.path, `lacks tensor ${name}, which ${INDEX_FILE} says it holds`);
    return [name, { file, entry }];
  }));
}
