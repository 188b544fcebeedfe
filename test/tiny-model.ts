/**
 * A random small checkpoint in a folder of its own, for tests that need a model of a certain make. Knows the
 * formats, no engine. Called by tests; the folder is deleted by `remove`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decoderTensors } from '../engine/model/decoder-tensors.ts';
import { parseModelSpec, type ModelFamily, type ModelSpec } from '../engine/model/spec.ts';
import { writeSafetensors, type FloatType } from './safetensors-writer.ts';
import { SeededRandom } from './seeded-random.ts';

export interface TinyModelOptions {
  readonly family?: ModelFamily;
  readonly layers?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly hidden?: number;
  readonly headDim?: number;
  readonly inner?: number;
  readonly vocab?: number;
  readonly contextLength?: number;
  /** Every optional bias; Qwen2 has its three anyway. */
  readonly biases?: boolean;
  readonly tiedHead?: boolean;
  /** Mistral and Qwen: tokens a query looks back. */
  readonly window?: number | null;
  /** Qwen: the first layer that slides. */
  readonly maxWindowLayers?: number;
  /** As config.json's rope_parameters. */
  readonly rope?: Readonly<Record<string, unknown>>;
  readonly type?: FloatType;
  readonly seed?: number;
}

export interface TinyModel {
  readonly dir: string;
  readonly spec: ModelSpec;
  remove(): void;
}

export function writeTinyModel(options: TinyModelOptions = {}): TinyModel {
  const config = tinyConfig(options);
  const spec = parseModelSpec(config);
  const dir = mkdtempSync(join(tmpdir(), 'longspan-tiny-'));
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
  writeSafetensors(join(dir, 'model.safetensors'), randomTensors(spec, options), options.type);
  return { dir, spec, remove: () => { rmSync(dir, { recursive: true }); } };
}

function tinyConfig(options: TinyModelOptions): Record<string, unknown> {
  const { family = 'llama', window = null } = options;
  const architectures = { llama: 'Llama', mistral: 'Mistral', qwen2: 'Qwen2', qwen3: 'Qwen3' };
  return {
    model_type: family, architectures: [`${architectures[family]}ForCausalLM`], hidden_act: 'silu', rms_norm_eps: 1e-5,
    num_hidden_layers: options.layers ?? 2, num_attention_heads: options.heads ?? 4, num_key_value_heads: options.kvHeads ?? 2,
    hidden_size: options.hidden ?? 32, head_dim: options.headDim ?? 16, intermediate_size: options.inner ?? 48,
    vocab_size: options.vocab ?? 96, max_position_embeddings: options.contextLength ?? 4096,
    tie_word_embeddings: options.tiedHead ?? false,
    rope_parameters: options.rope ?? { rope_type: 'default', rope_theta: 10_000 },
    sliding_window: window, use_sliding_window: window !== null, max_window_layers: options.maxWindowLayers ?? 0,
  };
}

/** Norm weights near 1; matrices large enough that attention is peaked, so that lists matter. */
function randomTensors(spec: ModelSpec, { biases = false, seed = 1 }: TinyModelOptions) {
  const random = new SeededRandom(seed);
  return decoderTensors(spec).filter(({ optional }) => biases || !optional).map(({ name, shape }) => {
    const isNorm = name.includes('norm');
    const spread = isNorm ? 0.1 : name.includes('embed') ? 1 : 1.6 / Math.sqrt(shape[1] ?? 16);
    const size = shape.reduce((a, b) => a * b, 1);
    return { name, shape, values: Float32Array.from({ length: size }, () => (isNorm ? 1 : 0) + spread * random.normal()) };
  });
}
