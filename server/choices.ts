/**
 * What the program chooses where the operator did not, each with its reason, and the lines that say so at start.
 * Pure. Called by main.ts.
 */
import type { Config } from '../config/options.ts';
import type { EngineProcessOptions } from '../scheduler/messages.ts';
import type { Services } from './services.ts';

export interface Choice<T> {
  readonly value: T;
  readonly reason: string;
}

/** More threads than this rarely make a step faster: the weights are small and each op ends with a barrier. */
const MAX_CHOSEN_THREADS = 8;

/** `asked` 0: all cores of a small machine, else one fewer, which is left for HTTP. */
export function chooseThreads(asked: number, cores: number): Choice<number> {
  if (asked > 0) return { value: asked, reason: 'as asked' };
  if (cores <= 2) return { value: cores, reason: `all of ${cores} cores` };
  const value = Math.min(MAX_CHOSEN_THREADS, cores - 1);
  return { value, reason: value === cores - 1 ? `${cores} cores, one is left for HTTP` : `of ${cores} cores; more seldom help` };
}

export interface EngineParts {
  readonly folder: string;
  /** '' for no draft model. */
  readonly draftFolder: string;
  readonly threads: number;
}

/** The part of the configuration that the engine process needs. */
export function engineOptions(config: Config, { folder, draftFolder, threads }: EngineParts): EngineProcessOptions {
  const { engine, precision, kvPrecision, cudaLibraries, cudaKernels, kvTokens, maxModelLen, maxSequences, stepTokens, targetGapMs, prefixCache, headFile, fakeStepMs } = config;
  return { engine, model: folder, draftModel: draftFolder, precision, kvPrecision, cudaLibraries, cudaKernels, threads, kvTokens, maxModelLen, maxSequences, stepTokens, targetGapMs, prefixCache, headFile, fakeStepMs };
}

/** What serves, for the operator; once the engine is ready. One fact a line. */
export function startSummary({ config, engine, model }: Services, facts: { readonly threads: Choice<number>; readonly numKeys: number }): readonly string[] {
  const spec = engine.spec!;
  const kvReason = config.kvTokens === 0 ? 'chosen by the engine; --kv-tokens sets it' : 'by --kv-tokens';
  return [
    `model      ${model.name}, up to ${model.contextLength} tokens${contextReason(config, spec.contextLength)}`,
    `engine     ${spec.engine} ${spec.precision}${spec.kvPrecision === undefined ? '' : `, KV memory ${spec.kvPrecision}`}${config.engine === 'auto' ? ' (auto)' : ''}, ${facts.threads.value} threads (${facts.threads.reason})`,
    `KV memory  ${engine.kvTokens} tokens, ${mebibytes(engine.kvTokens * spec.kvBytesPerToken)} MiB (${kvReason})`,
    `attention  ${config.attention} unless a request says otherwise`,
    `drafting   ${config.speculation} unless a request says otherwise${config.draftModel === '' ? '' : `, draft model ${config.draftModel}`}`,
    `API keys   ${facts.numKeys === 0 ? `none: whoever reaches ${config.host} may call` : String(facts.numKeys)}`,
  ];
}

function contextReason({ maxModelLen }: Config, trained: number): string {
  if (maxModelLen === 0) return '';
  return maxModelLen > trained ? ` (--max-model-len ${maxModelLen} is more than the model was trained for)` : ' (by --max-model-len)';
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}
