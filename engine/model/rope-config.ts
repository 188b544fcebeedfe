/**
 * The RoPE part of config.json, in both dialects: rope_theta + rope_scaling, and the newer rope_parameters.
 * Defaults are those of Hugging Face's rope_utils (transformers 5). Knows no frequencies (rope.ts computes
 * them). Called by spec.ts.
 */
import { isDeepStrictEqual } from 'node:util';
import { UnsupportedModelError } from '../engine.ts';
import { ConfigFields } from './config-fields.ts';

/** Rotary embedding; factor and limits as in Hugging Face's rope_utils. */
export type RopeSpec =
  | { readonly type: 'default'; readonly theta: number }
  | { readonly type: 'linear'; readonly theta: number; readonly factor: number }
  | { readonly type: 'dynamic'; readonly theta: number; readonly factor: number; readonly originalContext: number }
  | {
      readonly type: 'llama3'; readonly theta: number; readonly factor: number; readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number; readonly originalContext: number;
    }
  | {
      readonly type: 'yarn'; readonly theta: number; readonly factor: number; readonly originalContext: number;
      readonly betaFast: number; readonly betaSlow: number; readonly attentionFactor: number; readonly truncate: boolean;
    };

const DEFAULT_THETA = 10_000;

/** What a config may say about RoPE, read from wherever its dialect puts it. */
interface RopeFields {
  readonly scaling: ConfigFields;
  readonly theta: number;
  /** max_position_embeddings. */
  readonly maxPositions: number;
  /** Tokens of the context before it was stretched. */
  readonly originalContext: number;
}

type RopeType = RopeSpec['type'];

const parsers: Readonly<Record<RopeType, (fields: RopeFields) => RopeSpec>> = {
  default: ({ theta }) => ({ type: 'default', theta }),
  linear: ({ scaling, theta }) => ({ type: 'linear', theta, factor: scaling.positive('factor') }),
  // Hugging Face stretches from max_position_embeddings here, whatever original_max_position_embeddings says.
  dynamic: ({ scaling, theta, maxPositions }) =>
    ({ type: 'dynamic', theta, factor: scaling.positive('factor'), originalContext: maxPositions }),
  llama3: parseLlama3,
  yarn: parseYarn,
};

export function parseRope(config: ConfigFields, maxPositions: number): RopeSpec {
  const scaling = ropeObject(config);
  const type = scaling.text('rope_type', scaling.text('type', 'default'));
  if (!isRopeType(type)) {
    throw new UnsupportedModelError(
      `${config.path}: RoPE type '${type}' is not supported; supported are ${Object.keys(parsers).join(', ')}.`);
  }
  refusePartialRotation(config, scaling);
  return parsers[type]({
    scaling, maxPositions,
    theta: scaling.positive('rope_theta', config.positive('rope_theta', DEFAULT_THETA)),
    originalContext: originalContext(config, scaling, maxPositions),
  });
}

function isRopeType(type: string): type is RopeType {
  return Object.hasOwn(parsers, type);
}

function originalContext(config: ConfigFields, scaling: ConfigFields, maxPositions: number): number {
  const key = 'original_max_position_embeddings';
  return config.has(key) ? config.positive(key) : scaling.positive(key, maxPositions);
}

/** rope_scaling wins over rope_parameters, as in Hugging Face; neither means no scaling. */
function ropeObject(config: ConfigFields): ConfigFields {
  const found = config.object('rope_scaling') ?? config.object('rope_parameters');
  if (found === null) return new ConfigFields({}, config.path);
  return flatten(found);
}

/** { full_attention: {...}, sliding_attention: {...} } -> the one set of parameters that they share. */
function flatten(rope: ConfigFields): ConfigFields {
  const layerTypes = rope.keys().filter((key) => key.endsWith('_attention') && rope.has(key));
  const first = layerTypes[0];
  if (first === undefined) return rope;
  if (layerTypes.some((key) => !isDeepStrictEqual(rope.raw(key), rope.raw(first)))) {
    throw new UnsupportedModelError(`${rope.path}: RoPE parameters that differ by layer are not supported; supported is one set for all layers.`);
  }
  return new ConfigFields(rope.raw(first), `${rope.path} ${first}`);
}

function refusePartialRotation(config: ConfigFields, scaling: ConfigFields): void {
  const key = 'partial_rotary_factor';
  const factor = scaling.positive(key, config.positive(key, 1));
  if (factor === 1) return;
  throw new UnsupportedModelError(`${config.path}: ${key} ${factor} is not supported; supported is 1 (all channels rotate).`);
}

function parseLlama3({ scaling, theta, originalContext }: RopeFields): RopeSpec {
  const lowFrequencyFactor = scaling.positive('low_freq_factor');
  const highFrequencyFactor = scaling.positive('high_freq_factor');
  if (highFrequencyFactor <= lowFrequencyFactor) {
    throw new UnsupportedModelError(
      `${scaling.path}: high_freq_factor must be above low_freq_factor, got ${highFrequencyFactor} and ${lowFrequencyFactor}.`);
  }
  const factor = scaling.positive('factor');
  return { type: 'llama3', theta, factor, lowFrequencyFactor, highFrequencyFactor, originalContext };
}

function parseYarn({ scaling, theta, maxPositions, originalContext }: RopeFields): RopeSpec {
  const factor = scaling.positive('factor', maxPositions / originalContext);
  return {
    type: 'yarn', theta, factor, originalContext,
    betaFast: optional(scaling, 'beta_fast') ?? 32,
    betaSlow: optional(scaling, 'beta_slow') ?? 1,
    attentionFactor: scaling.positive('attention_factor', inferredAttentionFactor(scaling, factor)),
    truncate: scaling.flag('truncate', true),
  };
}

/** arXiv 2309.00071 section 3.4, with DeepSeek's split of it into two scales. */
function inferredAttentionFactor(scaling: ConfigFields, factor: number): number {
  const scale = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const mscale = optional(scaling, 'mscale');
  const allDimensions = optional(scaling, 'mscale_all_dim');
  return mscale === null || allDimensions === null ? scale(1) : scale(mscale) / scale(allDimensions);
}

/** Absent, null and 0 all mean "not set" to Hugging Face. */
function optional(scaling: ConfigFields, name: string): number | null {
  return scaling.raw(name) === 0 || !scaling.has(name) ? null : scaling.positive(name);
}
