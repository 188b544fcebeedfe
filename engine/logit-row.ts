/**
 * A row of logits as its readers need it: all of it, or its head. A draw, a greedy token and log-probabilities seldom
 * need more than the largest logits and the sum of what is left, so an engine whose rows lie on a device gives these and
 * fetches the row when it is asked to. Knows no sampler and no engine. Read by sampler.ts, logprobs.ts and verify.ts.
 */

/** Tokens of a head. */
export const HEAD_TOKENS = 256;

/** The largest logits of a row: all of them where the vocabulary has no more than HEAD_TOKENS. */
export interface RowHead {
  /** Largest logit first, of equals the lower token. [count] */
  readonly tokens: Int32Array;
  /** [count] */
  readonly logits: Float32Array;
  /** Tokens of the row. */
  readonly vocab: number;
  /** Sum of exp(logit - largest) over the tokens that are not in the head. */
  readonly rest: number;
  /** Sum of exp((logit - largest) / temperature) over them, with the temperature that the chunk named. */
  readonly restAtTemperature: number;
  /** The token that the chunk named for the row, and its logit; null for none. */
  readonly target: { readonly token: number; readonly logit: number } | null;
  /** The row itself; to be called before the engine's next step. [vocab] */
  whole(): Float32Array;
}

export type LogitRow = Float32Array | RowHead;

/** Rows of logits of a step. */
export interface StepRows {
  /** One entry per chunk, in order: [rows * vocab] with rows = 0 (null), 1 or n; null where heads are given. Valid until the next run. */
  readonly logits: readonly (Float32Array | null)[];
  /**
   * From an engine that gives heads of rows: those of the chunks that may have them, null for the others. Of a chunk that names a
   * target for every row nothing but the head need be there: its rows may not be asked for whole. [chunks] of [rows]
   */
  readonly heads?: readonly (readonly LogitRow[] | null)[];
}

export function wholeRow(row: LogitRow): Float32Array {
  return row instanceof Float32Array ? row : row.whole();
}

/** Rows of one chunk of a step; none where none were asked for. */
export function rowsOf({ logits, heads }: StepRows, chunk: number, vocab: number): readonly LogitRow[] {
  const found = heads?.[chunk] ?? null;
  if (found !== null) return found;
  const rows = logits[chunk] ?? new Float32Array(0);
  return Array.from({ length: rows.length / vocab }, (_, i) => rows.subarray(i * vocab, (i + 1) * vocab));
}
