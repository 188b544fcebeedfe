/**
 * The engine of the draft model (--draft-model): another checkpoint on the same kind of engine, with the vocabulary of
 * the served one, since tokens pass between them as ids. Refuses anything else at start. Called by scheduler/process.ts.
 */
import { join } from 'node:path';
import { createEngine, type CreateEngineOptions } from './create.ts';
import { UnsupportedModelError, type Engine, type EngineSpec } from './engine.ts';
import { readJsonFile } from './model/model-file-error.ts';

export interface CreateDraftEngineOptions extends CreateEngineOptions {
  /** Folder of the checkpoint; '' for none. */
  readonly draftModel: string;
}

/** KV memory of the draft model in tokens: it reads the end of a text, or what was retrieved, for each sequence. */
const DRAFT_KV_TOKENS = 65_536;

/** null when there is no draft model. Throws UnsupportedModelError or ModelFileError. */
export async function createDraftEngine(options: CreateDraftEngineOptions, target: EngineSpec): Promise<Engine | null> {
  const { draftModel, model } = options;
  if (draftModel === '') return null;
  await checkTokenizers(model, draftModel);
  const engine = await createEngine({ ...options, model: draftModel, kvTokens: DRAFT_KV_TOKENS, headFile: '' });
  if (engine.spec.vocab === target.vocab) return engine;
  await engine.close();
  throw new UnsupportedModelError(`The draft model ${draftModel} has ${engine.spec.vocab} rows of logits and the served model ${target.vocab}; they must have the same vocabulary.`);
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
