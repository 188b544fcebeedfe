/**
 * What every engine is: it owns the model's weights, the bytes behind page ids and the page statistics,
 * and turns chunks of tokens into logits. It knows token ids, pages and lists; no text, no requests, no
 * techniques. Called by the scheduler's loop; implementations: onnx/, reference/, fake/.
 */
import type { AttentionPlan } from '../kvcache/page-lists/page-list.ts';
import type { StepRows } from './logit-row.ts';

/** Consecutive tokens of one sequence to compute in this step. */
export interface Chunk {
  /**
   * 'prefill': the tokens are computed together, and pages picked for them serve all of them at once.
   * 'decode': row i of the logits is what a decode step of that token alone would give: to the bit with int8
   * KV memory, within rounding else. Pages are picked by the first token's queries alone, and all tokens
   * read them; where a chunk must end for that, PageListPolicy.maxDecodeTokens says.
   */
  readonly phase: 'prefill' | 'decode';
  /** Stable per sequence; keys what an engine remembers between steps (picked pages). */
  readonly sequenceId: number;
  /** Token ids. [n], n >= 1 */
  readonly tokens: Int32Array;
  /** Position of tokens[0] in the text, for RoPE too = tokens of this sequence that are in KV memory already. */
  readonly start: number;
  /** Physical page of each 64 positions; covers 0..start+n-1. Entries outside the plan may be -1. */
  readonly pageTable: Int32Array;
  readonly attention: AttentionPlan;
  /** Prompt length of the sequence; dynamic RoPE derives its base from it. */
  readonly promptTokens: number;
  /** Which rows of logits to return. */
  readonly logits: 'none' | 'last' | 'all';
  /**
   * Where rows are asked for to score a text: the token that stands behind each row's, -1 behind none. Heads of rows then come with
   * its logit. [n]
   */
  readonly targets?: Int32Array;
  /** Set where a sampler of this temperature reads the rows: the engine may then give heads of rows for whole ones. */
  readonly headTemperature?: number;
}

export interface StepResult extends StepRows {
  /** Pages read by attention, summed over chunks, layers and KV heads. */
  readonly pagesRead: number;
  /** Candidate pages scored, summed likewise. */
  readonly pagesScored: number;
  /** What a device took for the step: the rest of its time the host was at work. Absent where the host is the device. */
  readonly deviceMs?: number;
}

/** What the rest of the program may know of the loaded model. Plain data: crosses the process border. */
export interface EngineSpec {
  /** 'onnx', 'cuda', 'reference' or 'fake'. */
  readonly engine: string;
  readonly precision: string;
  /** Of keys and values, where it is another. */
  readonly kvPrecision?: string;
  readonly layers: number;
  readonly kvHeads: number;
  readonly vocab: number;
  /** Longest text the model was trained for, in tokens. */
  readonly contextLength: number;
  readonly slidingWindow: readonly (number | null)[];
  /** See HeadGeometry.headOrder. */
  readonly headOrder: Int32Array | null;
  /** True when keys depend on Chunk.promptTokens (dynamic RoPE): prefixes of unequal prompts are then not shared. */
  readonly keysDependOnPromptLength: boolean;
  /** Bytes of KV memory (statistics included) per token. */
  readonly kvBytesPerToken: number;
}

export interface Engine {
  readonly spec: EngineSpec;
  /** Pages of KV memory, each with a row for every KV head of every layer. */
  readonly pages: number;
  /**
   * Page ids are 0..pageIds-1. More than `pages` where a page may have the rows of some heads only: all pages together
   * have as many rows as `pages` whole ones. An id begins with all rows when its first token is written.
   */
  readonly pageIds: number;
  /**
   * True where `run` returns while a device works: what its caller does before awaiting the result costs no time. Messages are
   * let in before the result is there.
   */
  readonly worksApart?: boolean;
  /**
   * Computes the chunks, writes their keys and values to their pages, updates the page statistics.
   * Several chunks of one sequence in one step are computed in order, each seeing the one before.
   * A sequence's result does not depend on the other chunks. Not reentrant.
   */
  run(step: readonly Chunk[]): Promise<StepResult>;
  /**
   * To be called while a step runs, by who expects to run this one next: of its chunks everything is settled but the tokens,
   * one a chunk, which are put into the same arrays before `run` is called with this same step. Changes nothing else: any
   * other step may be run instead. Absent where planning a step takes no time from a device.
   */
  prepare?(step: readonly Chunk[]): void;
  /**
   * Forgets a sequence's tokens from position `length` on, as if they had never been computed: statistics of
   * the logical page that `length` falls into hold its remaining keys again, and pages picked from there on
   * are dropped for those picked before. To be called before the next step of the sequence.
   */
  truncate(sequence: Pick<Chunk, 'sequenceId' | 'pageTable'>, length: number): void;
  /** The rows of these KV heads (layer * kvHeads + head) of a page may be written over, or all it has (null): no list will name them. */
  release(page: number, heads: Int32Array | null): void;
  /** Drops what is remembered of a sequence (picked pages, rotated pages). Idempotent. */
  forget(sequenceId: number): void;
  close(): Promise<void>;
}

/** A model or an option that this program cannot serve. The message is one sentence for the operator. */
export class UnsupportedModelError extends Error {
  override readonly name = 'UnsupportedModelError';
}
