/**
 * The operations a decoder is written in. A backend gives each a meaning: onnx/ appends graph nodes,
 * reference/ computes in float64. V is the backend's handle on an activation.
 * Knows nothing of sequences or pages: `attend` is given lists by the backend's own step.
 * Called by decoder.ts only. "tokens" is the number of tokens of the step.
 */

/** Name of a tensor as Hugging Face writes it, without '.weight' for linear layers: 'model.layers.0.mlp.up_proj'. */
export type WeightName = string;

export interface Ops<V> {
  /** Rows of the table for the step's tokens. -> [tokens, hidden] */
  embed(table: WeightName): V;
  /** x / sqrt(mean(x^2) + eps) * weight, per row (arXiv 1910.07467). [tokens, hidden] -> same */
  rmsNorm(x: V, weight: WeightName): V;
  /** sum = x + delta; normed = rmsNorm(sum). One op, since backends fuse it. */
  addNorm(x: V, delta: V, weight: WeightName): { sum: V; normed: V };
  /** x W^T (+ bias, if the checkpoint has `${layer}.bias`). [tokens, in] -> [tokens, out] */
  linear(x: V, layer: WeightName): V;
  /** Several linear layers of one input, as `linear` one by one; backends compute them as one product. */
  linears(x: V, layers: readonly WeightName[]): V[];
  /** rmsNorm over each head's channels (Qwen3). [tokens, heads * headDim] -> same */
  headNorm(x: V, weight: WeightName, heads: number): V;
  /** Rotary embedding, half-split layout, at the step's positions (arXiv 2104.09864). [tokens, heads * headDim] -> same */
  rope(x: V, heads: number): V;
  /**
   * Writes k and v to the tokens' pages, updates the page statistics, then attends q over each sequence's
   * page list of this layer and causally over its chunk. q: [tokens, heads * headDim], k, v: [tokens,
   * kvHeads * headDim] -> [tokens, heads * headDim]
   */
  attend(layer: number, q: V, k: V, v: V): V;
  /** silu(gate) * up, elementwise. */
  siluMul(gate: V, up: V): V;
  /** The rows whose logits were asked for. [tokens, hidden] -> [rows, hidden] */
  selectRows(x: V): V;
  /** x W^T as float32. [rows, hidden] -> [rows, vocab] */
  logits(x: V, layer: WeightName): V;
}
