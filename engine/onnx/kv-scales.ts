/**
 * Scales of int8 keys and values: one per channel pair of K (both turn together under RoPE) and per channel
 * of V, found at load by running random tokens until nothing saturates. Static after that: the same bytes mean
 * the same numbers for the whole life of the memory. Called by onnx-engine.ts.
 */
import { Tensor } from 'onnxruntime-node';
import type { ModelSpec } from '../model/spec.ts';
import { layerNames } from './graph-interface.ts';

export interface LayerScales {
  /** [kvHeads * headDim] */
  readonly keys: Float32Array;
  /** [kvHeads * headDim] */
  readonly values: Float32Array;
}

/** Room above the largest value seen: text exceeds random tokens by up to 1.5 times on single channels. */
const MARGIN = 1.6;
/** A channel's scale is at least this share of its layer's largest, so that rare spikes do not clip hard. */
const FLOOR = 1 / 8;
const FIRST_GUESS = 0.1;
const MAX_ROUNDS = 6;

/** Runs the calibration text under the given scales; returns the new rows. [tokens, kvHeads * headDim] per layer */
export type CalibrationRun = (scales: readonly LayerScales[]) => Promise<readonly { keys: Int8Array; values: Int8Array }[]>;

export async function calibrateScales(spec: ModelSpec, run: CalibrationRun): Promise<LayerScales[]> {
  const width = spec.kvHeads * spec.headDim;
  const guess = (): Float32Array => new Float32Array(width).fill(FIRST_GUESS);
  let scales: LayerScales[] = Array.from({ length: spec.layers }, () => ({ keys: guess(), values: guess() }));
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const rows = await run(scales);
    const settled = rows.every(({ keys, values }) => isSettled(keys) && isSettled(values));
    scales = rows.map(({ keys, values }, layer) => {
      const old = scales[layer]!;
      return { keys: pairScales(newScales(keys, old.keys), spec), values: newScales(values, old.values) };
    });
    if (settled && round > 0) break;
  }
  return scales;
}

/** The inputs that fold the scales into q, k, v and the result. */
export function scaleInputs(spec: ModelSpec, scales: readonly LayerScales[]): Record<string, Tensor> {
  const inputs: Record<string, Tensor> = {};
  scales.forEach(({ keys, values }, layer) => {
    const names = layerNames(layer);
    const vector = (data: Float32Array): Tensor => new Tensor('float32', data, [data.length]);
    inputs[names.keyInverse] = vector(keys.map((scale) => 1 / scale));
    inputs[names.valueInverse] = vector(values.map((scale) => 1 / scale));
    inputs[names.queryScale] = vector(perQueryHead(keys, spec));
    inputs[names.outputScale] = vector(perQueryHead(values, spec));
  });
  return inputs;
}

/** A KV head's scales for each of its query heads. [heads * headDim] */
function perQueryHead(scales: Float32Array, { heads, kvHeads, headDim }: ModelSpec): Float32Array {
  const out = new Float32Array(heads * headDim);
  for (let head = 0; head < heads; head++) {
    const kvHead = Math.floor((head * kvHeads) / heads);
    out.set(scales.subarray(kvHead * headDim, (kvHead + 1) * headDim), head * headDim);
  }
  return out;
}

function isSettled(rows: Int8Array): boolean {
  return rows.every((value) => value > -127 && value < 127);
}

/** Scales under which the largest value seen of each channel fills 1 / MARGIN of the range. */
function newScales(rows: Int8Array, old: Float32Array): Float32Array {
  const width = old.length;
  const largest = new Float32Array(width);
  for (let i = 0; i < rows.length; i++) {
    const channel = i % width;
    largest[channel] = Math.max(largest[channel]!, Math.abs(rows[i]!));
  }
  // 127 may hide any larger value: widen and look again. Half a step for what rounding hides.
  const seen = largest.map((value, channel) => (value >= 127 ? 4 * 127 : value + 0.5) * old[channel]!);
  const floor = FLOOR * seen.reduce((a, b) => Math.max(a, b));
  return seen.map((value) => (Math.max(value, floor) * MARGIN) / 127);
}

/** Channels i and i + headDim/2 of a head share the larger radius: RoPE turns one into the other. */
function pairScales(scales: Float32Array, { kvHeads, headDim }: ModelSpec): Float32Array {
  const half = headDim / 2;
  const paired = scales.slice();
  for (let head = 0; head < kvHeads; head++) {
    for (let i = head * headDim; i < head * headDim + half; i++) {
      paired[i] = paired[i + half] = Math.hypot(scales[i]!, scales[i + half]!);
    }
  }
  return paired;
}
