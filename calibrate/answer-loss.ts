/**
 * What it does to right answers when some KV heads stream: the negative log likelihood of them from what had to be looked up on,
 * with those heads reading sinks and a window, in prefill too, and all others everything. Knows no search. Called by
 * measure.ts.
 */
import type { Engine } from '../engine/engine.ts';
import { scoreToken } from '../engine/logprobs.ts';
import { LServePages } from '../kvcache/page-lists/lserve.ts';
import type { StreamingReach } from './attention-mass.ts';
import { KINDS, type Kind } from './documents.ts';
import { Reader, type RowReader } from './reader.ts';
import { joined, type TokenizedDocument } from './tokens.ts';

/** Nats an answer by kind, of a continuation nats a token; kinds that no document asks for are left out. */
export type KindLosses = ReadonlyMap<Kind, number>;

/** Tokens at the end of a document that tell how well its text goes on. */
const CONTINUATION_TOKENS = 256;

/** Nats that an answer costs at most: wrong is wrong, and how wrong is chance. */
const WRONG = 5;

export class AnswerLoss {
  readonly #engine: Engine;
  readonly #documents: readonly TokenizedDocument[];
  readonly #reach: StreamingReach;

  constructor(engine: Engine, documents: readonly TokenizedDocument[], reach: StreamingReach) {
    this.#engine = engine;
    this.#documents = documents;
    this.#reach = reach;
  }

  /** With these KV heads (layer * kvHeads + head) streaming. */
  async of(heads: readonly number[]): Promise<KindLosses> {
    const sums = new Sums();
    const reader = new Reader(this.#engine, this.#policy(heads));
    for (const document of this.#documents) await readDocument(reader, document, this.#engine.spec.vocab, sums);
    return sums.means();
  }

  #policy(heads: readonly number[]): LServePages {
    const { layers, kvHeads } = this.#engine.spec;
    const numHeads = layers * kvHeads;
    const rest = Array.from({ length: numHeads }, (_, head) => head).filter((head) => !heads.includes(head));
    return new LServePages({
      attention: 'lserve', tokenBudget: Infinity, sinkTokens: this.#reach.sinkTokens, localTokens: this.#reach.windowTokens,
      streamingHeads: heads.length / numHeads, selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: false,
    }, { ...this.#engine.spec, headOrder: Int32Array.from([...heads, ...rest]) });
  }
}

/** Nats lost against dense attention, mean over the kinds. What one kind gains makes up for no other's loss. */
export function harmOf(losses: KindLosses, dense: KindLosses): number {
  return [...losses].reduce((sum, [kind, loss]) => sum + Math.max(0, loss - dense.get(kind)!), 0) / losses.size;
}

async function readDocument(reader: Reader, { shared, asked }: TokenizedDocument, vocab: number, sums: Sums): Promise<void> {
  const scored = Math.max(1, shared.length - CONTINUATION_TOKENS);
  await reader.prefill(shared, 0, scored - 1);
  const nats = { continuation: 0, answer: 0 };
  await reader.prefill(shared, scored - 1, shared.length - 1, lossReader(shared, vocab, (loss) => { nats.continuation += loss / (shared.length - scored); }));
  sums.add('continuation', nats.continuation);
  for (const { kind, tokens, countedFrom } of asked) {
    const all = joined(shared, tokens);
    const counted = shared.length + countedFrom;
    await reader.prefill(all, shared.length - 1, counted - 1);
    nats.answer = 0;
    await reader.prefill(all, counted - 1, all.length - 1, lossReader(all, vocab, (loss) => { nats.answer += loss; }));
    sums.add(kind, Math.min(nats.answer, WRONG));
    reader.truncate(shared.length - 1);
  }
  reader.forget();
}

/** Tells what each token after one of a chunk's cost. */
function lossReader(tokens: Int32Array, vocab: number, tell: (loss: number) => void): RowReader {
  return (rows, from, to) => {
    for (let i = from; i < to; i++) tell(-scoreToken(rows.subarray((i - from) * vocab, (i - from + 1) * vocab), tokens[i + 1]!, 0).logprob);
  };
}

class Sums {
  readonly #sums = new Map<Kind, { loss: number; count: number }>();

  add(kind: Kind, loss: number): void {
    const sum = this.#sums.get(kind) ?? { loss: 0, count: 0 };
    this.#sums.set(kind, { loss: sum.loss + loss, count: sum.count + 1 });
  }

  /** In the order of KINDS. */
  means(): KindLosses {
    return new Map(KINDS.flatMap((kind) => {
      const sum = this.#sums.get(kind);
      return sum === undefined ? [] : [[kind, sum.loss / sum.count]];
    }));
  }
}
