/**
 * The decoder, written once for every backend: Llama, Mistral, Qwen2 and Qwen3 differ only in data (biases,
 * head norms, windows). Knows no backend and no memory. Called by each engine: once to build a graph
 * (onnx), or at each step (reference).
 */
import type { Ops } from './ops.ts';
import type { ModelSpec } from './spec.ts';

/** -> logits of the rows that the step asks for. [rows, vocab] */
export function decode<V>(ops: Ops<V>, spec: ModelSpec): V {
  let hidden = ops.embed('model.embed_tokens');
  let normed = ops.rmsNorm(hidden, 'model.layers.0.input_layernorm');
  for (let layer = 0; layer < spec.layers; layer++) {
    const name = `model.layers.${layer}`;
    const attended = attention(ops, spec, layer, normed);
    const middle = ops.addNorm(hidden, attended, `${name}.post_attention_layernorm`);
    const delta = feedForward(ops, `${name}.mlp`, middle.normed);
    if (layer === spec.layers - 1) return head(ops, spec, middle.sum, delta);
    const end = ops.addNorm(middle.sum, delta, `model.layers.${layer + 1}.input_layernorm`);
    hidden = end.sum;
    normed = end.normed;
  }
  throw new RangeError(`a decoder needs at least one layer, got ${spec.layers}`);
}

function attention<V>(ops: Ops<V>, spec: ModelSpec, layer: number, x: V): V {
  const name = `model.layers.${layer}.self_attn`;
  const [query, key, v] = ops.linears(x, [`${name}.q_proj`, `${name}.k_proj`, `${name}.v_proj`]) as [V, V, V];
  let q = query;
  let k = key;
  if (spec.headNorms) {
    q = ops.headNorm(q, `${name}.q_norm`, spec.heads);
    k = ops.headNorm(k, `${name}.k_norm`, spec.kvHeads);
  }
  q = ops.rope(q, spec.heads);
  k = ops.rope(k, spec.kvHeads);
  return ops.linear(ops.attend(layer, q, k, v), `${name}.o_proj`);
}

function feedForward<V>(ops: Ops<V>, name: string, x: V): V {
  const [gate, up] = ops.linears(x, [`${name}.gate_proj`, `${name}.up_proj`]) as [V, V];
  return ops.linear(ops.siluMul(gate, up), `${name}.down_proj`);
}

/** Final norm and head, on the wanted rows only: the head is the widest layer of a small model. */
function head<V>(ops: Ops<V>, spec: ModelSpec, x: V, delta: V): V {
  const { normed } = ops.addNorm(ops.selectRows(x), ops.selectRows(delta), 'model.norm');
  return ops.logits(normed, spec.tiedHead ? 'model.embed_tokens' : 'lm_head');
}
