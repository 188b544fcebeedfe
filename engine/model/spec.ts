/**
 * What a checkpoint's config.json says, in our words. parseModelSpec refuses what the engines cannot compute,
 * with a sentence that names what they can. Knows no weights. Called by engine/create.ts.
 */
import { UnsupportedModelError } from '../engine.ts';
import { ConfigFields } from './config-fields.ts';
import { parseRope, type RopeSpec } from './rope-config.ts';

export type { RopeSpec };

export type ModelFamily = 'llama' | 'mistral' | 'qwen2' | 'qwen3';

export interface ModelSpec {
  readonly family: ModelFamily;
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Width of the feed-forward layer. */
  readonly inner: number;
  readonly vocab: number;
  readonly normEps: number;
  readonly rope: RopeSpec;
  /** The output head is the embedding table. */
  readonly tiedHead: boolean;
  /** Qwen3: RMS norm on each head of q and k. */
  readonly headNorms: boolean;
  /** Tokens a query may look back (itself included), or null. [layers] */
  readonly slidingWindow: readonly (number | null)[];
  /** max_position_embeddings, or what yarn stretches it to where that is longer. */
  readonly contextLength: number;
}

/** How Hugging Face names a family's causal language model in `architectures`, lower case. */
const architectureOf: Readonly<Record<ModelFamily, string>> = {
  llama: 'llamaforcausallm', mistral: 'mistralforcausallm', qwen2: 'qwen2forcausallm', qwen3: 'qwen3forcausallm',
};
const SUPPORTED = 'supported are Llama 2 and 3, Mistral, Qwen2 and Qwen3 causal language models with one dense feed-forward layer per block';

/** The parsed JSON of config.json -> ModelSpec; throws UnsupportedModelError. */
export function parseModelSpec(config: unknown): ModelSpec {
  const fields = new ConfigFields(config, 'config.json');
  const family = parseFamily(fields);
  refuseVariants(fields);
  const layers = fields.count('num_hidden_layers');
  const maxPositions = fields.count('max_position_embeddings');
  const rope = parseRope(fields, maxPositions);
  return {
    family, layers, rope,
    ...parseWidths(fields),
    vocab: fields.count('vocab_size'),
    normEps: fields.positive('rms_norm_eps', 1e-6),
    tiedHead: fields.flag('tie_word_embeddings', false),
    headNorms: family === 'qwen3',
    slidingWindow: family.startsWith('qwen') ? qwenWindows(fields, layers) : Array<number | null>(layers).fill(familyWindow(fields, family)),
    contextLength: rope.type === 'yarn' ? Math.max(maxPositions, Math.floor(rope.originalContext * rope.factor)) : maxPositions,
  };
}

function parseFamily(fields: ConfigFields): ModelFamily {
  const type = fields.text('model_type', '');
  if (!isFamily(type)) throw new UnsupportedModelError(`config.json: model_type '${type}' is not supported; ${SUPPORTED}.`);
  const architectures = fields.texts('architectures');
  if (architectures !== null && !architectures.some((name) => name.toLowerCase() === architectureOf[type])) {
    throw new UnsupportedModelError(`config.json: architecture '${architectures.join(', ')}' is not supported; ${SUPPORTED}.`);
  }
  return type;
}

function isFamily(type: string): type is ModelFamily {
  return Object.hasOwn(architectureOf, type);
}

/** Whatever would change the arithmetic and is not implemented must be refused, never ignored. */
function refuseVariants(fields: ConfigFields): void {
  const activation = fields.text('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish') {
    throw new UnsupportedModelError(`config.json: activation '${activation}' is not supported; supported is silu.`);
  }
  if (fields.has('quantization_config')) {
    throw new UnsupportedModelError('config.json: quantized checkpoints (quantization_config) are not supported; supported are F32, F16 and BF16 weights.');
  }
  const expertKey = ['num_experts', 'num_local_experts', 'n_routed_experts'].find((key) => fields.has(key) && fields.raw(key) !== 0);
  if (expertKey !== undefined) throw new UnsupportedModelError(`config.json: mixtures of experts (${expertKey}) are not supported; ${SUPPORTED}.`);
}

type Widths = Pick<ModelSpec, 'hidden' | 'heads' | 'kvHeads' | 'headDim' | 'inner'>;

function parseWidths(fields: ConfigFields): Widths {
  const hidden = fields.count('hidden_size');
  const heads = fields.count('num_attention_heads');
  const kvHeads = fields.count('num_key_value_heads', heads);
  const headDim = fields.count('head_dim', hidden / heads);
  if (heads % kvHeads !== 0) {
    throw new UnsupportedModelError(`config.json: num_attention_heads (${heads}) must be a multiple of num_key_value_heads (${kvHeads}).`);
  }
  if (headDim % 2 !== 0) throw new UnsupportedModelError(`config.json: head_dim must be even, got ${headDim}.`);
  return { hidden, heads, kvHeads, headDim, inner: fields.count('intermediate_size') };
}

/** Mistral slides in every layer, Llama in none. */
function familyWindow(fields: ConfigFields, family: ModelFamily): number | null {
  return family === 'mistral' ? writtenWindow(fields) : null;
}

/** null is off; absent is 4096, the default of Hugging Face's configurations of Mistral and Qwen. */
function writtenWindow(fields: ConfigFields): number | null {
  return fields.isWritten('sliding_window') && !fields.has('sliding_window') ? null : fields.count('sliding_window', 4096);
}

/** Qwen slides in the layers that layer_types names, or in those from max_window_layers on. [layers] */
function qwenWindows(fields: ConfigFields, layers: number): (number | null)[] {
  const window = fields.flag('use_sliding_window', false) ? writtenWindow(fields) : null;
  const types = fields.texts('layer_types') ?? defaultLayerTypes(fields, layers, window);
  if (types.length !== layers) throw new UnsupportedModelError(`config.json: layer_types names ${types.length} layers, num_hidden_layers is ${layers}.`);
  return types.map((type) => {
    if (type === 'full_attention') return null;
    if (type === 'sliding_attention' && window !== null) return window;
    throw new UnsupportedModelError(type === 'sliding_attention'
      ? 'config.json: layer_types has sliding layers, but use_sliding_window is not true.'
      : `config.json: layer type '${type}' is not supported; supported are full_attention and sliding_attention.`);
  });
}

function defaultLayerTypes(fields: ConfigFields, layers: number, window: number | null): readonly string[] {
  const fullLayers = fields.raw('max_window_layers') === 0 ? 0 : fields.count('max_window_layers', 28);
  return Array.from({ length: layers }, (_, layer) => (window !== null && layer >= fullLayers ? 'sliding_attention' : 'full_attention'));
}
