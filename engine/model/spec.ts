/**
 * What a checkpoint's config.json says, in our words. parseModelSpec refuses what the engines cannot compute,
 * with a sentence that names what they can. Knows no weights. Called by engine/create.ts.
 */

export type ModelFamily = 'llama' | 'mistral' | 'qwen2' | 'qwen3';

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
  /** max_position_embeddings. */
  readonly contextLength: number;
}
