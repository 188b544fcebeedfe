/**
 * The engines of a server: that of the served model, and that of the draft model (--draft-model): another checkpoint on
 * the same kind of engine, with the same vocabulary, since tokens pass between them as ids. Refuses anything else at
 * start. Called by scheduler/process.ts.
 */
import { join } from 'node:path';
import { createEngine, type CreateEngineOptions } from './create.ts';
import { UnsupportedModelError, type Engine } from './engine.ts';
import { readJsonFile } from './model/model-file-error.ts';
import { parseModelSpec } from './model/spec.ts';

export interface CreateEnginesOptions extends CreateEngineOptions {
  /** Folder of the checkpoint; '' for none. */
  readonly draftModel: string;
}

export interface Engines {
  readonly engine: Engine;
  /** null when there is no draft model. */
  readonly draftEngine: Engine | null;
}

/** KV memory of the draft model in tokens: it reads the end of a text, or what was retrieved, for each sequence. */
const DRAFT_KV_TOKENS = 65_536;
/** Channels of a draft model whose steps gain nothing by a second thread, while threads of two pools that wait for work take cores from each other. */
const ONE_THREAD_CHANNELS = 256;
/** Device memory for the activations of the draft model's steps. */
const DRAFT_SPARE_BYTES = 1 << 30;

/**
 * The served model's engine and the draft model's. The draft model's comes first: KV memory of the served one takes what
 * is left. Throws UnsupportedModelError or ModelFileError.
 */
export async function createEngines(options: CreateEnginesOptions): Promise<Engines> {
  const { draftModel, model } = options;
  if (draftModel === '') return { engine: await createEngine(options), draftEngine: null };
  await checkTokenizers(model, draftModel);
  const { hidden } = parseModelSpec(await readJsonFile(join(draftModel, 'config.json')));
  const threads = hidden <= ONE_THREAD_CHANNELS ? 1 : options.threads;
  const draftEngine = await createEngine({ ...options, model: draftModel, threads, kvTokens: DRAFT_KV_TOKENS, headFile: '' });
  const engine = await createEngine({ ...options, spareBytes: DRAFT_SPARE_BYTES }).catch(async (error: unknown) => {
    await draftEngine.close();
    throw error;
  });
  const [drafted, served] = [draftEngine.spec.vocab, engine.spec.vocab];
  if (drafted === served) return { engine, draftEngine };
  await Promise.all([engine.close(), draftEngine.close()]);
  throw new UnsupportedModelError(`The draft model ${draftModel} has ${drafted} rows of logits and the served model ${served}; they must have the same vocabulary.`);
}

/** Both files say the same of every token: its text, its id, and how texts are split into them. */
async function checkTokenizers(model: string, draftModel: string): Promise<void> {
  const [served, drafting] = await Promise.all([model, draftModel].map(readTokens));
  const other = served!.size >= drafting!.size ? firstDifference(served!, drafting!) : firstDifference(drafting!, served!);
  if (other === null) return;
  throw new UnsupportedModelError(
    `The draft model ${draftModel} has another vocabulary than the served model: '${other}' is token ${drafting!.get(other) ?? 'of no number'} there and ${served!.get(other) ?? 'of no number'} here.`,
  );
}

function firstDifference(larger: ReadonlyMap<string, number>, smaller: ReadonlyMap<string, number>): string | null {
  for (const [token, id] of larger) if (smaller.get(token) !== id) return token;
  return null;
}

async function readTokens(folder: string): Promise<Map<string, number>> {
  const file = await readJsonFile(join(folder, 'tokenizer.json')) as { model?: { vocab?: unknown }; added_tokens?: unknown };
  const vocab = file.model?.vocab;
  if (Array.isArray(vocab)) return new Map(vocab.map((entry: unknown, id) => [JSON.stringify(entry), id]));
  const tokens = new Map(Object.entries((vocab ?? {}) as Record<string, number>));
  for (const { content, id } of (file.added_tokens ?? []) as { content: string; id: number }[]) tokens.set(content, id);
  return tokens;
}
