/**
 * Reads token ids through an engine the way the scheduler does: one sequence, pages in order, chunks no longer than the
 * policy of the page lists allows. Knows no prompts. Called by measure.ts and answer-loss.ts.
 */
import type { Chunk, Engine } from '../engine/engine.ts';
import { pagesFor } from '../kvcache/page-lists/lists.ts';
import type { PageListPolicy } from '../kvcache/page-lists/page-list.ts';

const CHUNK_TOKENS = 512;
const SEQUENCE = 0;

/** Called with the rows of logits of each chunk. rows: [tokens * vocab], of tokens[from..]; valid during the call. */
export type RowReader = (rows: Float32Array, from: number, to: number) => void;

export class Reader {
  readonly #engine: Engine;
  readonly #policy: PageListPolicy;
  readonly #pageTable: Int32Array;

  constructor(engine: Engine, policy: PageListPolicy) {
    this.#engine = engine;
    this.#policy = policy;
    this.#pageTable = Int32Array.from({ length: engine.pages }, (_, page) => page);
  }

  /** Computes tokens[from..to); `onRows` asks for the logits after each. */
  async prefill(tokens: Int32Array, from: number, to: number, onRows?: RowReader): Promise<void> {
    for (let start = from; start < to;) {
      const end = Math.min(to, start + Math.min(CHUNK_TOKENS - (start % CHUNK_TOKENS), this.#policy.maxChunkTokens(start)));
      await this.#run(tokens, { start, end, phase: 'prefill' }, onRows);
      start = end;
    }
  }

  /** One chunk, as answers are read. */
  decode(tokens: Int32Array, from: number, to: number): Promise<void> {
    return this.#run(tokens, { start: from, end: to, phase: 'decode' });
  }

  /** As if nothing had been read from position `length` on. */
  truncate(length: number): void {
    this.#engine.truncate({ sequenceId: SEQUENCE, pageTable: this.#pageTable }, length);
  }

  forget(): void {
    this.#engine.forget(SEQUENCE);
  }

  async #run(tokens: Int32Array, { start, end, phase }: Pick<Chunk, 'start' | 'phase'> & { end: number }, onRows?: RowReader): Promise<void> {
    const pageTable = this.#pageTable.subarray(0, pagesFor(end));
    const attention = this.#policy.plan(pageTable, start, end - start, phase);
    const { logits: [rows] } = await this.#engine.run([{
      phase, sequenceId: SEQUENCE, tokens: tokens.subarray(start, end), start, pageTable, attention,
      promptTokens: tokens.length, logits: onRows === undefined ? 'none' : 'all',
    }]);
    if (onRows !== undefined) onRows(rows!, start, end);
  }
}
