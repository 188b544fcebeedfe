/**
 * The model as the API shows it: its name, how long a text may be, which tokens end an answer, how it samples unless
 * a request says otherwise. Read from the checkpoint's JSON files; knows no weights. Made by main.ts, used by routes/.
 */
import { readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { EngineClient } from './generation.ts';

/** Sampling of requests that leave a parameter out. */
export interface SamplingDefaults {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
}

export interface ServedModel {
  readonly name: string;
  /** Unix seconds, as in OpenAI's model object. */
  readonly created: number;
  /** Ids that end an answer unless ignore_eos; empty if the model names none. */
  readonly stopTokenIds: readonly number[];
  readonly sampling: SamplingDefaults;
  /** Longest prompt plus answer, in tokens. Grows exact once the engine is ready. */
  readonly contextLength: number;
}

export interface ServedModelOptions {
  /** Folder of the checkpoint. */
  readonly folder: string;
  /** '' takes the folder's name. */
  readonly name: string;
  /** 0 for no limit of ours. */
  readonly maxModelLen: number;
  /** The tokenizer's end-of-text id. */
  readonly eosId: number | null;
  readonly engine: Pick<EngineClient, 'spec'>;
}

type Json = Readonly<Record<string, unknown>>;

/** The name in the API: as asked, else the folder's; in a Hugging Face cache folders are named by commit, and the model stands above. */
export function servedName({ folder, name }: Pick<ServedModelOptions, 'folder' | 'name'>): string {
  const path = resolve(folder);
  const cached = /models--([^/\\]+)[/\\]snapshots[/\\][^/\\]+$/.exec(path)?.[1];
  return name !== '' ? name : cached?.replaceAll('--', '/') ?? basename(path);
}

export async function readServedModel(options: ServedModelOptions): Promise<ServedModel> {
  const config = await readJson(join(options.folder, 'config.json'));
  const generation = await readJson(join(options.folder, 'generation_config.json'));
  const trained = positive(config['max_position_embeddings']) ?? Infinity;
  const limit = options.maxModelLen === 0 ? Infinity : options.maxModelLen;
  return {
    name: servedName(options),
    created: Math.floor(Date.now() / 1000),
    stopTokenIds: stopTokenIds(generation, config, options.eosId),
    sampling: samplingDefaults(generation),
    get contextLength() {
      return Math.min(options.engine.spec?.contextLength ?? trained, limit);
    },
  };
}

/** generation_config.json's ids, else config.json's; and the tokenizer's, as vLLM does. */
function stopTokenIds(generation: Json, config: Json, eosId: number | null): readonly number[] {
  const listed: unknown = generation['eos_token_id'] ?? config['eos_token_id'];
  const ids = [...(Array.isArray(listed) ? (listed as unknown[]) : [listed]), eosId];
  return [...new Set(ids.filter((id): id is number => Number.isInteger(id)))];
}

/**
 * generation_config.json's values; OpenAI's where it has none. A file that says do_sample false still gives
 * temperature 1: greedy is what a client asks for by temperature 0, as with vLLM.
 */
function samplingDefaults(generation: Json): SamplingDefaults {
  const value = (key: string, fallback: number): number => (typeof generation[key] === 'number' ? generation[key] : fallback);
  return {
    temperature: value('temperature', 1),
    topP: value('top_p', 1),
    topK: value('top_k', 0),
    minP: value('min_p', 0),
    repetitionPenalty: value('repetition_penalty', 1),
  };
}

function positive(value: unknown): number | null {
  return typeof value === 'number' && value > 0 ? value : null;
}

/** {} when the file does not exist; a sentence with its name when it is broken. */
async function readJson(path: string): Promise<Json> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '{}';
    throw new Error(`${path}: cannot be read (${error instanceof Error ? error.message : String(error)})`);
  });
  try {
    const content: unknown = JSON.parse(text);
    if (typeof content === 'object' && content !== null && !Array.isArray(content)) return content as Json;
  } catch (error) {
    throw new Error(`${path}: not valid JSON (${error instanceof Error ? error.message : String(error)})`);
  }
  throw new Error(`${path}: must hold a JSON object`);
}
