/**
 * The step after the one that runs, planned while a device works: where all that runs decodes one token at a time, only the
 * tokens are missing, and the engine may prepare the rest. What it foresaw is used where it came true to the letter;
 * else the step is planned anew. Knows chunks and pages, no queue. Called by loop.ts.
 */
import type { Engine } from '../engine/engine.ts';
import type { KvCache } from '../kvcache/kv-cache.ts';
import type { PageTable } from '../kvcache/page-table.ts';
import { planNextDecode, type PlannedChunk, type Scheduled } from './step-plan.ts';

interface Foreseen {
  readonly plan: readonly PlannedChunk[];
  /** What each chunk was planned with. */
  readonly tables: readonly { readonly table: PageTable; readonly numChanges: number }[];
}

export class Foresight {
  readonly #engine: Engine;
  readonly #kv: KvCache;
  #foreseen: Foreseen | null = null;

  constructor(engine: Engine, kv: KvCache) {
    this.#engine = engine;
    this.#kv = kv;
  }

  /** While `running` runs: plans what comes next if every one of its sequences goes on. Takes the pages for it, which are taken then anyway. */
  look(running: readonly PlannedChunk[]): void {
    this.#foreseen = null;
    if (this.#engine.prepare === undefined || !running.every(goesOn)) return;
    if (!running.every(({ sequence, start }) => this.#kv.reserve(sequence.pages!, start + 2))) return;
    const plan = running.map(planNextDecode);
    this.#foreseen = { plan, tables: plan.map(({ sequence }) => ({ table: sequence.pages!.table, numChanges: sequence.pages!.table.numChanges })) };
    this.#engine.prepare(plan);
  }

  /** What was foreseen, with its tokens, if it is what is scheduled now; null otherwise. */
  take(scheduled: readonly Scheduled[]): readonly PlannedChunk[] | null {
    const foreseen = this.#foreseen;
    this.#foreseen = null;
    if (foreseen?.plan.length !== scheduled.length) return null;
    if (!foreseen.plan.every((chunk, i) => isScheduled(chunk, scheduled[i]!) && isUnchanged(chunk, foreseen.tables[i]!))) return null;
    for (const { tokens, sequence, start } of foreseen.plan) tokens[0] = sequence.text[start]!;
    return foreseen.plan;
  }
}

/** One token without a draft, of a sequence that had all others in memory. */
function goesOn({ sequence, phase, tokens, drafted, logits }: PlannedChunk): boolean {
  return phase === 'decode' && tokens.length === 1 && drafted.length === 0 && logits === 'last' && sequence.speculation === null;
}

function isScheduled({ sequence, start }: PlannedChunk, now: Scheduled): boolean {
  return now.sequence === sequence && now.tokens === 1 && now.draftTokens === 0 && sequence.isDecoding && sequence.computed === start;
}

/** A sequence that gave way and came back has another table. */
function isUnchanged({ sequence }: PlannedChunk, { table, numChanges }: Foreseen['tables'][number]): boolean {
  return sequence.pages!.table === table && table.numChanges === numChanges;
}
