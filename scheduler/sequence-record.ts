/**
 * What was done for one sequence, counted as it happens, and the SequenceMetrics made of it at the end.
 * Times are milliseconds of the scheduler's clock. Called by live-sequences.ts and commit.ts.
 */
import type { AttentionPlan, AttentionSettings, PageListPolicy } from '../kvcache/page-lists/page-list.ts';
import type { SequenceMetrics, SpeculationSettings } from './messages.ts';
import type { SpeculationRecord } from './speculation-record.ts';

/** What one chunk reads of KV memory. */
export interface AttentionReads {
  /** Tokens, mean over layers and KV heads. */
  readonly tokens: number;
  /** Pages, summed over layers and KV heads. */
  readonly pages: number;
}

/** What the metrics tell of the sequence itself; every Sequence is one. */
export interface RecordedSequence {
  readonly submission: { readonly submittedMs: number };
  readonly request: {
    readonly attention: AttentionSettings;
    readonly speculation: Pick<SpeculationSettings, 'eta'>;
    readonly sampling: { readonly temperature: number };
  };
  readonly speculation: Pick<SpeculationRecord, 'draftedTokens' | 'acceptedTokens' | 'verifiedPasses' | 'toMetrics'> | null;
  readonly policy: Pick<PageListPolicy, 'isExact'>;
  readonly promptTokens: number;
  readonly generated: number;
  /** The most tokens that were ever in KV memory. */
  readonly highWater: number;
}

export class SequenceRecord {
  startedMs: number | null = null;
  firstTokenMs: number | null = null;
  lastTokenMs: number | null = null;
  longestGapMs = 0;
  cachedTokens = 0;
  recomputedTokens = 0;
  preemptions = 0;
  /** Tokens that the last decode step read; 0 before. */
  lastAttended = 0;
  #decodeSteps = 0;
  #attendedTokens = 0;
  #pagesRead = 0;

  tokenAt(nowMs: number): void {
    if (this.lastTokenMs !== null) this.longestGapMs = Math.max(this.longestGapMs, nowMs - this.lastTokenMs);
    this.firstTokenMs ??= nowMs;
    this.lastTokenMs = nowMs;
  }

  decodeStep(reads: AttentionReads): void {
    this.#decodeSteps++;
    this.lastAttended = reads.tokens;
    this.#attendedTokens += reads.tokens;
    this.#pagesRead += reads.pages;
  }

  toMetrics(sequence: RecordedSequence, endMs: number): SequenceMetrics {
    const { submittedMs } = sequence.submission;
    const startedMs = this.startedMs ?? endMs;
    const firstTokenMs = this.firstTokenMs ?? endMs;
    const decodeSteps = Math.max(1, this.#decodeSteps);
    return {
      queueMs: startedMs - submittedMs,
      prefillMs: firstTokenMs - startedMs,
      firstTokenMs: firstTokenMs - submittedMs,
      decodeMs: endMs - firstTokenMs,
      longestGapMs: this.longestGapMs,
      promptTokens: sequence.promptTokens,
      cachedTokens: this.cachedTokens,
      computedTokens: Math.max(0, Math.min(sequence.highWater, sequence.promptTokens) - this.cachedTokens),
      recomputedTokens: this.recomputedTokens,
      preemptions: this.preemptions,
      generatedTokens: sequence.generated,
      attendedTokensPerStep: this.#attendedTokens / decodeSteps,
      pagesReadPerStep: this.#pagesRead / decodeSteps,
      draftedTokens: sequence.speculation?.draftedTokens ?? 0,
      acceptedTokens: sequence.speculation?.acceptedTokens ?? 0,
      speculation: sequence.speculation?.toMetrics() ?? null,
      ...exactness(sequence),
    };
  }
}

/** Each head reads the list of its class, and the chunk's own `tokens` besides (counted when decoding: one). */
export function readsOf({ classes, classOf }: AttentionPlan, ownTokens: number): AttentionReads {
  if (classes.length === 1) {
    const { tokens, fixed, pick } = classes[0]!;
    return { tokens: tokens + ownTokens, pages: classOf.length * (fixed.length + pick) };
  }
  let tokens = 0;
  let pages = 0;
  for (let head = 0; head < classOf.length; head++) {
    const list = classes[classOf[head]!]!;
    tokens += list.tokens;
    pages += list.fixed.length + list.pick;
  }
  return { tokens: tokens / classOf.length + ownTokens, pages };
}

function exactness(sequence: RecordedSequence): Pick<SequenceMetrics, 'exactness' | 'exactnessReason'> {
  const { policy, highWater, request } = sequence;
  const reasons: string[] = [];
  if (!policy.isExact(highWater)) reasons.push(`${request.attention.attention} attention: ${limits(request.attention)} of ${highWater}`);
  if (transfers(sequence)) reasons.push(`knowledge transfer: eta ${request.speculation.eta} draws the distribution towards the drafter's`);
  return reasons.length === 0 ? { exactness: 'exact', exactnessReason: null } : { exactness: 'approximate', exactnessReason: reasons.join('; ') };
}

/** Where one token has the whole mass, as in greedy decoding, there is nothing to transfer. */
function transfers({ request, speculation }: RecordedSequence): boolean {
  return request.speculation.eta > 0 && request.sampling.temperature > 0 && (speculation?.verifiedPasses ?? 0) > 0;
}

function limits({ attention, sinkTokens, localTokens, tokenBudget, streamingHeads }: AttentionSettings): string {
  const window = `the first ${sinkTokens} and the last ${localTokens} tokens`;
  if (attention === 'streaming' || streamingHeads === 1) return `all heads read ${window}`;
  const retrieval = `retrieval heads read ${tokenBudget} tokens`;
  return streamingHeads === 0 ? retrieval : `${Math.round(streamingHeads * 100)} % of the heads read ${window}, ${retrieval}`;
}
