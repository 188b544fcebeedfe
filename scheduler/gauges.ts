/** The state of the engine side in numbers, for metrics and admission. Called by loop.ts after each step. */
import type { KvCache } from '../kvcache/kv-cache.ts';
import type { CostModel } from './cost-model.ts';
import type { LiveSequences } from './live-sequences.ts';
import type { EngineGauges } from './messages.ts';
import type { Sequence } from './sequence.ts';

export function gaugesOf(live: LiveSequences, kv: KvCache, cost: CostModel): EngineGauges {
  return {
    runningSequences: live.running.length,
    waitingSequences: live.waiting.size,
    prefillBacklogTokens: backlog(live.waiting) + backlog(live.running),
    prefillTokensPerSecond: cost.prefillTokensPerSecond,
    decodeStepMs: cost.decodeStepMs,
    pagesTotal: kv.numPages,
    pagesHeld: kv.numHeld,
    pagesCached: kv.numCached,
    pagesFree: kv.numFree,
  };
}

/** A blocked choice will find its prompt computed. */
function backlog(sequences: Iterable<Sequence>): number {
  let tokens = 0;
  for (const sequence of sequences) {
    if (!sequence.isBlocked) tokens += Math.max(0, sequence.promptTokens - sequence.computed);
  }
  return tokens;
}
