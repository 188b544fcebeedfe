/**
 * Which tensors the decoder reads, and their shapes: the counterpart of decoder.ts in names. Knows no files.
 * Called by weights.ts (to check a checkpoint) and by tests (to write one).
 */
import type { ModelSpec } from './spec.ts';

export interface DecoderTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Biases: the decoder adds them where the checkpoint has them. */
  readonly optional: boolean;
}

/** In the order that the decoder reads them. */
export function decoderTensors(spec: ModelSpec): readonly DecoderTensor[] {
  const layers = Array.from({ length: spec.layers }, (_, layer) => layerTensors(spec, `model.layers.${layer}`));
  const head = spec.tiedHead ? [] : [required('lm_head.weight', spec.vocab, spec.hidden)];
  return [
    required('model.embed_tokens.weight', spec.vocab, spec.hidden),
    ...layers.flat(), required('model.norm.weight', spec.hidden), ...head,
  ];
}

function layerTensors(spec: ModelSpec, layer: string): readonly DecoderTensor[] {
  const { hidden, inner, headDim } = spec;
  const queries = spec.heads * headDim;
  const keys = spec.kvHeads * headDim;
  const attention = `${layer}.self_attn`;
  // Qwen2 alone is defined with these three biases: there a missing one is a defect of the file.
  const optional = spec.family !== 'qwen2';
  return [
    required(`${layer}.input_layernorm.weight`, hidden),
    ...linear(`${attention}.q_proj`, queries, hidden, optional),
    ...linear(`${attention}.k_proj`, keys, hidden, optional),
    ...linear(`${attention}.v_proj`, keys, hidden, optional),
    ...(spec.headNorms ? [required(`${attention}.q_norm.weight`, headDim), required(`${attention}.k_norm.weight`, headDim)] : []),
    ...linear(`${attention}.o_proj`, hidden, queries),
    required(`${layer}.post_attention_layernorm.weight`, hidden),
    ...linear(`${layer}.mlp.gate_proj`, inner, hidden),
    ...linear(`${layer}.mlp.up_proj`, inner, hidden),
    ...linear(`${layer}.mlp.down_proj`, hidden, inner),
  ];
}

function required(name: string, ...shape: number[]): DecoderTensor {
  return { name, shape, optional: false };
}

function linear(name: string, out: number, inputs: number, optionalBias = true): readonly DecoderTensor[] {
  return [required(`${name}.weight`, out, inputs), { name: `${name}.bias`, shape: [out], optional: optionalBias }];
}
