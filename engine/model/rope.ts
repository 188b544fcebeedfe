/**
 * Rotary position tables for every RoPE type that Hugging Face's rope_utils defines and we support: default,
 * linear, dynamic, llama3 and yarn. Angles are float64, so positions in the millions stay exact to 1e-9.
 * Knows no tensors. Called by the engines: per step for new tokens, and to move stored keys.
 */
import type { RopeSpec } from './spec.ts';

type Dynamic = Extract<RopeSpec, { type: 'dynamic' }>;
type Llama3 = Extract<RopeSpec, { type: 'llama3' }>;
type Yarn = Extract<RopeSpec, { type: 'yarn' }>;

export interface RopeTable {
  /** [tokens, headDim / 2] */
  readonly cos: Float32Array | Float64Array;
  /** [tokens, headDim / 2] */
  readonly sin: Float32Array | Float64Array;
}

export interface RopePositions {
  /** RoPE position of the first token. */
  readonly start: number;
  readonly tokens: number;
  /** Prompt length of the sequence: the dynamic base of the whole prompt follows from it. */
  readonly promptTokens: number;
}

export class Rope {
  /** Channel pairs: channel i turns with channel i + headDim / 2. */
  readonly pairs: number;
  readonly #spec: RopeSpec;
  readonly #headDim: number;
  /** Radians per position; null where they depend on the length (dynamic). [pairs] */
  readonly #fixed: Float64Array | null;

  constructor(spec: RopeSpec, headDim: number) {
    this.#spec = spec;
    this.#headDim = headDim;
    this.pairs = headDim / 2;
    this.#fixed = spec.type === 'dynamic' ? null : fixedFrequencies(spec, headDim);
  }

  /** What yarn multiplies cos and sin by, so that scores q.k grow by its square; 1 for all others. */
  get attentionFactor(): number {
    return this.#spec.type === 'yarn' ? this.#spec.attentionFactor : 1;
  }

  /** Radians per position for a token of a sequence that has `sequenceTokens` tokens. [pairs] */
  frequencies(sequenceTokens: number): Float64Array {
    return this.#fixed ?? dynamicFrequencies(this.#spec as Dynamic, this.#headDim, sequenceTokens);
  }

  /** Writes rows 0..tokens-1 of the target, attention factor included. */
  fill(target: RopeTable, { start, tokens, promptTokens }: RopePositions): void {
    let frequencies = this.frequencies(promptTokens);
    for (let token = 0; token < tokens; token++) {
      const position = start + token;
      if (this.#fixed === null && position >= promptTokens) frequencies = this.frequencies(position + 1);
      this.#fillRow(target, token * this.pairs, frequencies, position, this.attentionFactor);
    }
  }

  /**
   * Writes row 0 of the target: the turn that moves a stored key by `delta` positions. The key already has
   * the attention factor. Under dynamic RoPE the turn is that of the prompt's base.
   */
  fillShift(target: RopeTable, delta: number, promptTokens: number): void {
    this.#fillRow(target, 0, this.frequencies(promptTokens), delta, 1);
  }

  #fillRow({ cos, sin }: RopeTable, row: number, frequencies: Float64Array, position: number, factor: number): void {
    for (let pair = 0; pair < this.pairs; pair++) {
      const angle = position * frequencies[pair]!;
      cos[row + pair] = Math.cos(angle) * factor;
      sin[row + pair] = Math.sin(angle) * factor;
    }
  }
}

/** Turns one head in place by a table row: half-split layout. vector[offset..offset + 2 * pairs) */
export function rotate(vector: Float32Array | Float64Array, offset: number, table: RopeTable, row: number, pairs: number): void {
  for (let pair = 0; pair < pairs; pair++) {
    const cos = table.cos[row * pairs + pair]!;
    const sin = table.sin[row * pairs + pair]!;
    const low = vector[offset + pair]!;
    const high = vector[offset + pairs + pair]!;
    vector[offset + pair] = low * cos - high * sin;
    vector[offset + pairs + pair] = high * cos + low * sin;
  }
}

function fixedFrequencies(spec: Exclude<RopeSpec, Dynamic>, headDim: number): Float64Array {
  const plain = plainFrequencies(spec.theta, headDim);
  switch (spec.type) {
    case 'default': return plain;
    case 'linear': return plain.map((frequency) => frequency / spec.factor);
    case 'llama3': return plain.map((frequency) => llama3Frequency(spec, frequency));
    case 'yarn': return yarnFrequencies(spec, plain);
  }
}

/** theta^(-2i / headDim) (arXiv 2104.09864). [headDim / 2] */
function plainFrequencies(theta: number, headDim: number): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, pair) => theta ** (-2 * pair / headDim));
}

/** "NTK-aware" scaling by length: the base grows so that the slowest channel spans the sequence. */
function dynamicFrequencies(spec: Dynamic, headDim: number, sequenceTokens: number): Float64Array {
  const length = Math.max(sequenceTokens, spec.originalContext);
  const stretch = spec.factor * length / spec.originalContext - (spec.factor - 1);
  return plainFrequencies(spec.theta * stretch ** (headDim / (headDim - 2)), headDim);
}

/** Fast channels stay, slow ones slow down by the factor, those between are blended (Llama 3.1). */
function llama3Frequency(spec: Llama3, frequency: number): number {
  const turns = spec.originalContext * frequency / (2 * Math.PI);
  if (turns < spec.lowFrequencyFactor) return frequency / spec.factor;
  if (turns > spec.highFrequencyFactor) return frequency;
  const keep = (turns - spec.lowFrequencyFactor) / (spec.highFrequencyFactor - spec.lowFrequencyFactor);
  return (1 - keep) * frequency / spec.factor + keep * frequency;
}

/** Blend by channel number between the channels that turn betaFast and betaSlow times (arXiv 2309.00071). */
function yarnFrequencies(spec: Yarn, plain: Float64Array): Float64Array {
  const headDim = plain.length * 2;
  const channelOf = (turns: number) =>
    headDim * Math.log(spec.originalContext / (turns * 2 * Math.PI)) / (2 * Math.log(spec.theta));
  const [fast, slow] = [channelOf(spec.betaFast), channelOf(spec.betaSlow)];
  const low = Math.max(spec.truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(spec.truncate ? Math.ceil(slow) : slow, headDim - 1);
  // Equal ends would divide by zero; the width is that of rope_utils.
  const width = high === low ? 0.001 : high - low;
  return plain.map((frequency, pair) => {
    const slowed = Math.min(Math.max((pair - low) / width, 0), 1);
    return frequency / spec.factor * slowed + frequency * (1 - slowed);
  });
}
