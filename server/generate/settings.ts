/**
 * A valid body -> what the engine is asked: sampling, attention, drafting, stopping, priority. Checks what a schema cannot:
 * rules between parameters, token ids against the vocabulary, the server's limits. Pure. Knows no prompt. Called by
 * generate.ts before anything costs time.
 */
import type { Config } from '../../config/options.ts';
import type { SharedBody } from '../../routes/schemas.ts';
import type { SamplingSettings } from '../../scheduler/messages.ts';
import { apiError } from '../errors.ts';
import type { EngineClient } from '../generation.ts';
import type { SamplingDefaults, ServedModel } from '../served-model.ts';
import { attentionSettings, type AttentionDefaults, type AttentionSettings } from './attention.ts';
import { speculationSettings, type AskedSpeculation, type SpeculationDefaults } from './speculation.ts';

export interface RequestSettings {
  readonly choices: number;
  readonly minTokens: number;
  readonly stopStrings: readonly string[];
  readonly includeStop: boolean;
  /** The request's own; a choice that one of them ends says which. */
  readonly ownStopTokenIds: readonly number[];
  /** All that end a choice. */
  readonly stopTokenIds: readonly number[];
  readonly sampling: SamplingSettings;
  readonly attention: AttentionSettings;
  readonly speculation: AskedSpeculation;
  readonly priority: number;
  readonly deadlineMs: number | null;
  readonly cacheSalt: string;
  readonly progress: boolean;
  readonly returnTokenIds: boolean;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
}

export interface SettingsContext {
  readonly config: AttentionDefaults & SpeculationDefaults & Pick<Config, 'maxChoices'>;
  readonly model: Pick<ServedModel, 'sampling' | 'stopTokenIds'>;
  readonly spec: NonNullable<EngineClient['spec']>;
}

export function requestSettings(body: SharedBody, { config, model, spec }: SettingsContext): RequestSettings {
  const ownStopTokenIds = body.stop_token_ids ?? [];
  const longContext = body.long_context ?? {};
  const attention = attentionSettings(longContext, config, spec);
  checkVocabulary(ownStopTokenIds, spec.vocab, 'stop_token_ids');
  return {
    choices: numChoices(body, config.maxChoices),
    minTokens: body.min_tokens ?? 0,
    stopStrings: typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []),
    includeStop: body.include_stop_str_in_output ?? false,
    ownStopTokenIds,
    stopTokenIds: [...(body.ignore_eos === true ? [] : model.stopTokenIds), ...ownStopTokenIds],
    sampling: samplingSettings(body, model.sampling, spec.vocab),
    attention,
    speculation: speculationSettings(longContext, config, attention.attention),
    priority: body.priority ?? 0,
    deadlineMs: body.deadline_ms ?? null,
    cacheSalt: body.cache_salt ?? '',
    progress: body.return_progress ?? false,
    returnTokenIds: body.return_token_ids ?? false,
    ...streamSettings(body),
  };
}

/** Throws invalid_value for the first id that is not in the vocabulary. */
export function checkVocabulary(tokens: ArrayLike<number>, vocab: number, param: string): void {
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i]! < vocab) continue;
    throw apiError('invalid_value', { param: `${param}[${i}]`, reason: `token ${tokens[i]!} is not in the vocabulary of ${vocab} tokens.` });
  }
}

function numChoices(body: SharedBody, maxChoices: number): number {
  const choices = body.n ?? 1;
  if (choices > maxChoices) throw apiError('integer_above_max_value', { param: 'n', limit: maxChoices, got: choices });
  return choices;
}

function streamSettings(body: SharedBody): Pick<RequestSettings, 'stream' | 'includeUsage' | 'continuousUsage'> {
  const stream = body.stream ?? false;
  const options = body.stream_options ?? null;
  if (!stream && options !== null) {
    throw apiError('invalid_value', { param: 'stream_options', reason: "it is only allowed when 'stream' is true." });
  }
  const continuousUsage = options?.continuous_usage_stats ?? false;
  return { stream, continuousUsage, includeUsage: options?.include_usage ?? continuousUsage };
}

function samplingSettings(body: SharedBody, defaults: SamplingDefaults, vocab: number): SamplingSettings {
  return {
    temperature: body.temperature ?? defaults.temperature,
    topP: body.top_p ?? defaults.topP,
    topK: Math.max(0, body.top_k ?? defaults.topK),
    minP: body.min_p ?? defaults.minP,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    repetitionPenalty: body.repetition_penalty ?? defaults.repetitionPenalty,
    logitBias: logitBias(body.logit_bias ?? {}, vocab),
    seed: safeSeed(body.seed ?? null),
  };
}

function logitBias(biases: Readonly<Record<string, number>>, vocab: number): SamplingSettings['logitBias'] {
  return Object.entries(biases).map(([key, bias]) => {
    const token = /^\d{1,9}$/.test(key) ? Number(key) : vocab;
    if (token < vocab) return [token, bias] as const;
    throw apiError('invalid_value', { param: 'logit_bias', reason: `'${key.slice(0, 32)}' is not a token id below ${vocab}.` });
  });
}

/** Seeds may fill 64 bits, a number holds 53: keeps the low 52, so that seed + choice stays exact. */
function safeSeed(seed: number | null): number | null {
  return seed === null ? null : Number(BigInt.asUintN(52, BigInt(seed)));
}
