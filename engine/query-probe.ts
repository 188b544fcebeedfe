/**
 * Looks at the queries of an engine while it runs: for measurements of attention (calibrate/), never for
 * serving. An engine built without a probe computes exactly what it always does. Implemented by
 * calibrate/attention-mass.ts, called by the onnx engine.
 */
import type { Chunk } from './engine.ts';

/** What one layer asked of its keys in one chunk. Valid during the call only. */
export interface ProbedLayer {
  readonly chunk: Chunk;
  readonly layer: number;
  /** After RoPE. [tokens, heads * headDim] */
  readonly queries: Float32Array;
  /** The stored keys of one page, those of the chunk included. [64, headDim] */
  readonly keysOf: (kvHead: number, page: number) => Float32Array;
}

export interface QueryProbe {
  /** Called for every layer of every chunk, once the chunk's keys are stored. */
  observe(probed: ProbedLayer): void;
}
