/**
 * A step of one run whose tables were made before its tokens were known. Knows tables, and of the step its tokens only.
 * Made and used by cuda-engine.ts.
 */
import { checkBelow } from '../check-chunk.ts';
import type { Chunk } from '../engine.ts';
import type { RunTables } from './run-tables.ts';

export class PreparedStep {
  readonly step: readonly Chunk[];
  readonly #tables: RunTables;

  constructor(step: readonly Chunk[], tables: RunTables) {
    this.step = step;
    this.#tables = tables;
  }

  /** The tables with the tokens, one a chunk, that the step has now. */
  complete(vocab: number): RunTables {
    const { block, offsets } = this.#tables;
    const tokens = new Int32Array(block, offsets.tokens, this.step.length);
    this.step.forEach((chunk, i) => { tokens[i] = chunk.tokens[0]!; });
    checkBelow('token', tokens, vocab);
    return this.#tables;
  }
}
