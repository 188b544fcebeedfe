/**
 * Configuration + engine -> the Services that buildApp takes. Reads the model's files, opens no port. Called by
 * main.ts, and by tests that want the real parts.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Config } from '../config/options.ts';
import { openRetrieval } from '../retrieval/retrieval-service.ts';
import { openTextService } from '../tokenizer/text-service.ts';
import { Admission } from './admission.ts';
import type { EngineClient } from './generation.ts';
import { contradiction } from './generate/speculation.ts';
import { Lifecycle } from './lifecycle.ts';
import { Metrics } from './metrics.ts';
import { packagePath } from './package.ts';
import { readServedModel, servedName } from './served-model.ts';
import type { Services } from './services.ts';

/** Served when no --model is given. */
const BUNDLED_MODEL = 'models/longspan-16m';

/** Absolute path of the model's folder. Throws a sentence when there is no model. */
export function modelFolder({ model }: Pick<Config, 'model'>): string {
  return checkedFolder(model === '' ? packagePath(BUNDLED_MODEL) : resolve(model));
}

/** The same of the draft model; '' when there is none. */
export function draftFolder({ draftModel }: Pick<Config, 'draftModel'>): string {
  return draftModel === '' ? '' : checkedFolder(resolve(draftModel));
}

function checkedFolder(folder: string): string {
  if (!existsSync(folder)) throw new Error(`the model folder ${folder} does not exist.`);
  if (!existsSync(join(folder, 'config.json'))) throw new Error(`${folder} is no model folder: it has no config.json.`);
  return folder;
}

/** Throws a sentence when a file of a model is missing or broken, or when options contradict each other. */
export async function createServices(config: Config, engine: EngineClient): Promise<Services> {
  const problem = contradiction(config);
  if (problem !== null) throw new Error(problem);
  const folder = modelFolder(config);
  const metrics = new Metrics(servedName({ folder, name: config.servedModelName }));
  metrics.watch(engine);
  const onEncode = (seconds: number, bytes: number): void => { metrics.tokenized(seconds, bytes); };
  const text = await openTextService(folder, { maxThreads: config.tokenizerThreads, onEncode });
  const retrieval = await openRetrieval({ dir: folder, embeddingDir: config.embeddingModel === '' ? '' : resolve(config.embeddingModel), threads: config.tokenizerThreads });
  const { servedModelName: name, maxModelLen } = config;
  const model = await readServedModel({ folder, name, maxModelLen, eosId: text.tokenizer.eosId, engine });
  const admission = new Admission({ engine, limits: config, onRefused: (reason) => { metrics.refused(reason); } });
  return { config, engine, text, retrieval, model, metrics, admission, lifecycle: new Lifecycle() };
}
