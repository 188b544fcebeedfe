// config.json in both dialects, and what is refused.
import { describe, expect, test } from 'vitest';
import { UnsupportedModelError } from '../../../engine/engine.ts';
import { parseModelSpec } from '../../../engine/model/spec.ts';

type Config = Record<string, unknown>;

const llama: Config = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_act: 'silu', hidden_size: 64, intermediate_size: 160,
  num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 512, max_position_embeddings: 4096,
  rms_norm_eps: 1e-5, tie_word_embeddings: true,
};
const mistral: Config = { ...llama, model_type: 'mistral', architectures: ['MistralForCausalLM'] };
const qwen2: Config = { ...llama, model_type: 'qwen2', architectures: ['Qwen2ForCausalLM'] };
const qwen3: Config = { ...llama, model_type: 'qwen3', architectures: ['Qwen3ForCausalLM'] };

function without(config: Config, ...keys: string[]): Config {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
}

const ropeOf = (config: Config) => parseModelSpec({ ...llama, ...config }).rope;

describe('shape', () => {
  test('a Llama configuration in our words', () => {
    expect(parseModelSpec({ ...llama, head_dim: 32, rope_theta: 5e5 })).toEqual({
      family: 'llama', layers: 3, hidden: 64, heads: 4, kvHeads: 2, headDim: 32, inner: 160, vocab: 512, normEps: 1e-5,
      rope: { type: 'default', theta: 5e5 }, tiedHead: true, headNorms: false, slidingWindow: [null, null, null], contextLength: 4096,
    });
  });

  test.each([{ head_dim: null }, {}])('head_dim %o is hidden size over heads', (config) => {
    expect(parseModelSpec({ ...llama, ...config }).headDim).toBe(16);
  });

  test('without num_key_value_heads every head has its own', () => {
    expect(parseModelSpec(without(llama, 'num_key_value_heads')).kvHeads).toBe(4);
  });

  test('heads are untied unless the configuration says otherwise', () => {
    expect(parseModelSpec(without(llama, 'tie_word_embeddings')).tiedHead).toBe(false);
  });

  test('only Qwen3 normalises heads', () => {
    expect([llama, mistral, qwen2, qwen3].map((config) => parseModelSpec(config).headNorms)).toEqual([false, false, false, true]);
  });
});

describe('RoPE in both dialects', () => {
  const numbers = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 256 };
  const llama3 = { type: 'llama3', theta: 5e5, factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 256 };

  test.each<[string, Config]>([
    ['rope_theta and rope_scaling with rope_type', { rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...numbers } }],
    ['rope_theta and rope_scaling with type', { rope_theta: 5e5, rope_scaling: { type: 'llama3', ...numbers } }],
    ['rope_parameters', { rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...numbers } }],
    ['rope_parameters beside a null rope_scaling', { rope_scaling: null, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...numbers } }],
    ['rope_parameters by layer type', { rope_parameters: {
      full_attention: { rope_type: 'llama3', rope_theta: 5e5, ...numbers }, sliding_attention: { rope_type: 'llama3', rope_theta: 5e5, ...numbers },
    } }],
  ])('%s', (_, config) => {
    expect(ropeOf(config)).toEqual(llama3);
  });

  test('neither dialect means the default base', () => {
    expect(ropeOf({})).toEqual({ type: 'default', theta: 10_000 });
  });

  test('linear', () => {
    expect(ropeOf({ rope_scaling: { type: 'linear', factor: 4 } })).toEqual({ type: 'linear', theta: 10_000, factor: 4 });
  });

  test('dynamic stretches from max_position_embeddings, as Hugging Face does', () => {
    expect(ropeOf({ rope_scaling: { type: 'dynamic', factor: 2, original_max_position_embeddings: 128 } }))
      .toEqual({ type: 'dynamic', theta: 10_000, factor: 2, originalContext: 4096 });
  });

  test('yarn with defaults: attention factor 0.1 ln(factor) + 1, original context that of the model', () => {
    expect(ropeOf({ rope_scaling: { type: 'yarn', factor: 4 } })).toEqual({
      type: 'yarn', theta: 10_000, factor: 4, originalContext: 4096, betaFast: 32, betaSlow: 1, truncate: true,
      attentionFactor: 1.1386294361119891,
    });
  });

  test('yarn with two scales of attention', () => {
    // (0.1 * 1 * ln 40 + 1) / (0.1 * 0.7 * ln 40 + 1)
    const rope = ropeOf({ rope_scaling: { type: 'yarn', factor: 40, mscale: 1, mscale_all_dim: 0.7, beta_fast: 16, beta_slow: 2, truncate: false } });
    expect(rope).toMatchObject({ attentionFactor: 1.0879546075066122, betaFast: 16, betaSlow: 2, truncate: false });
  });

  test('yarn with an attention factor of its own, and a factor that follows from the contexts', () => {
    const rope = ropeOf({ max_position_embeddings: 8192, rope_scaling: { type: 'yarn', attention_factor: 1.25, original_max_position_embeddings: 2048 } });
    expect(rope).toMatchObject({ attentionFactor: 1.25, factor: 4, originalContext: 2048 });
  });

  test('the original context beside the RoPE parameters wins over the one inside', () => {
    const rope = ropeOf({ original_max_position_embeddings: 512, rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 256 } });
    expect(rope).toMatchObject({ originalContext: 512 });
  });

  test('yarn over a context that was not raised lengthens the context', () => {
    const context = (positions: number) => parseModelSpec({
      ...llama, max_position_embeddings: positions, rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 4096 },
    }).contextLength;
    expect([context(4096), context(16_384), context(20_000)]).toEqual([16_384, 16_384, 20_000]);
  });
});

describe('sliding windows', () => {
  const windows = (config: Config) => parseModelSpec(config).slidingWindow;

  test.each([[64, 64], [null, null], [undefined, 4096]])('Mistral with sliding_window %s looks back %s', (window, expected) => {
    const config = window === undefined ? mistral : { ...mistral, sliding_window: window };
    expect(windows(config)).toEqual([expected, expected, expected]);
  });

  test('Llama has none, whatever is written', () => {
    expect(windows({ ...llama, sliding_window: 64 })).toEqual([null, null, null]);
  });

  test.each([qwen2, qwen3])('Qwen slides from max_window_layers on, if at all', (qwen) => {
    const sliding = { ...qwen, sliding_window: 64, max_window_layers: 1 };
    expect(windows({ ...sliding, use_sliding_window: true })).toEqual([null, 64, 64]);
    expect(windows({ ...sliding, use_sliding_window: true, max_window_layers: 0 })).toEqual([64, 64, 64]);
    expect(windows({ ...sliding, use_sliding_window: false })).toEqual([null, null, null]);
    expect(windows(sliding)).toEqual([null, null, null]);
    expect(windows({ ...sliding, use_sliding_window: true, sliding_window: null })).toEqual([null, null, null]);
  });

  test('layer_types say which layers slide', () => {
    const types = ['sliding_attention', 'full_attention', 'sliding_attention'];
    expect(windows({ ...qwen3, use_sliding_window: true, sliding_window: 64, layer_types: types })).toEqual([64, null, 64]);
  });
});

describe('refusals', () => {
  test.each<[string, unknown, RegExp]>([
    ['no object', [], /config.json must be a JSON object/],
    ['another family', { ...llama, model_type: 'gemma2' }, /model_type 'gemma2' is not supported; supported are Llama.*Mistral.*Qwen2.*Qwen3/],
    ['no family', without(llama, 'model_type'), /model_type '' is not supported/],
    ['a name that every object has', { ...llama, model_type: 'toString' }, /model_type 'toString' is not supported/],
    ['another task', { ...llama, architectures: ['LlamaForSequenceClassification'] }, /architecture 'LlamaForSequenceClassification' is not supported; supported are/],
    ['another activation', { ...llama, hidden_act: 'gelu' }, /activation 'gelu' is not supported; supported is silu/],
    ['quantized weights', { ...llama, quantization_config: { quant_method: 'gptq' } }, /quantized checkpoints .* supported are F32, F16 and BF16/],
    ['experts', { ...mistral, num_local_experts: 8 }, /experts .* not supported; supported are/],
    ['another RoPE', { ...llama, rope_scaling: { rope_type: 'longrope', factor: 4 } }, /RoPE type 'longrope' is not supported; supported are default, linear, dynamic, llama3, yarn/],
    ['RoPE that differs by layer', { ...llama, rope_parameters: { full_attention: { rope_theta: 1e4 }, sliding_attention: { rope_theta: 1e6 } } }, /differ by layer are not supported/],
    ['partial rotation', { ...llama, partial_rotary_factor: 0.5 }, /partial_rotary_factor 0.5 is not supported; supported is 1/],
    ['a scaling without its factor', { ...llama, rope_scaling: { type: 'linear' } }, /rope_scaling: factor must be a positive number, it is missing/],
    ['llama3 bounds the wrong way round', { ...llama, rope_scaling: { type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 1 } }, /got 1 and 4/],
    ['heads that do not share evenly', { ...llama, num_key_value_heads: 3 }, /num_attention_heads \(4\) must be a multiple of num_key_value_heads \(3\)/],
    ['heads that do not divide the width', { ...llama, num_attention_heads: 6, num_key_value_heads: 6 }, /head_dim must be a positive whole number/],
    ['an odd head', { ...llama, head_dim: 15 }, /head_dim must be even, got 15/],
    ['a missing number', without(llama, 'num_hidden_layers'), /num_hidden_layers must be a positive whole number, it is missing/],
    ['a number in quotes', { ...llama, hidden_size: '64' }, /hidden_size must be a positive whole number, got "64"/],
    ['a layer count of zero', { ...llama, num_hidden_layers: 0 }, /num_hidden_layers must be a positive whole number, got 0/],
    ['an endless norm', { ...llama, rms_norm_eps: -1 }, /rms_norm_eps must be a positive number, got -1/],
    ['layer_types of another length', { ...qwen3, layer_types: ['full_attention'] }, /layer_types names 1 layers, num_hidden_layers is 3/],
    ['an unknown layer type', { ...qwen3, layer_types: Array(3).fill('linear_attention') }, /layer type 'linear_attention' is not supported/],
    ['sliding layers without a window', { ...qwen3, layer_types: Array(3).fill('sliding_attention') }, /use_sliding_window is not true/],
  ])('%s', (_, config, message) => {
    expect(() => parseModelSpec(config)).toThrow(UnsupportedModelError);
    expect(() => parseModelSpec(config)).toThrow(message);
  });
});
