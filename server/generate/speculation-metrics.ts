/**
 * `metrics.speculation` of an answer: what was asked, what each level of drafting did in all choices together, and why
 * there was none. Pure. Knows what the scheduler reports and what the API calls it. Called by generate.ts.
 */
import type { DraftLevelMetrics, SequenceMetrics } from '../../scheduler/messages.ts';
import type { PlannedSpeculation } from './draft-prompt.ts';
import type { AskedSpeculation } from './speculation.ts';

export function speculationObject(planned: PlannedSpeculation, choices: readonly SequenceMetrics[]): object {
  if (planned.asked.settings.speculation === 'off') return { speculation: 'off' };
  const parts = choices.flatMap(({ speculation }) => speculation === null ? [] : [speculation]);
  return {
    ...applied(planned.asked),
    verified_passes: parts.reduce((total, { verifiedPasses }) => total + verifiedPasses, 0),
    plain_passes: parts.reduce((total, { plainPasses }) => total + plainPasses, 0),
    levels: summed(parts.flatMap(({ levels }) => levels)).map(levelObject),
    off_reason: planned.offReason ?? (parts.length < choices.length ? 'this engine does not draft' : parts.find(({ offReason }) => offReason !== null)?.offReason ?? null),
    ...(planned.retrieval === null ? {} : { retrieval: retrievalObject(planned.retrieval) }),
  };
}

/** Only the settings that the kind reads. */
function applied({ settings, retrieval }: AskedSpeculation): object {
  const shared = { speculation: settings.speculation, draft_tokens: settings.draftTokens, force_speculation: settings.force };
  switch (settings.speculation) {
    case 'triforce': return { ...shared, draft_budget: settings.draftBudget, draft_level: settings.draftLevel };
    case 'rapid': return { ...shared, draft_level: settings.draftLevel, rag_tokens: retrieval.ragTokens, rag_chunk_tokens: retrieval.ragChunkTokens, eta: settings.eta };
    default: return shared;
  }
}

/** By name, in the order in which names come first. */
function summed(levels: readonly DraftLevelMetrics[]): DraftLevelMetrics[] {
  const sums = new Map<string, DraftLevelMetrics>();
  for (const { level, draftedTokens, acceptedTokens } of levels) {
    const sum = sums.get(level);
    sums.set(level, {
      level, draftedTokens: draftedTokens + (sum?.draftedTokens ?? 0), acceptedTokens: acceptedTokens + (sum?.acceptedTokens ?? 0),
    });
  }
  return [...sums.values()];
}

function levelObject({ level, draftedTokens, acceptedTokens }: DraftLevelMetrics): object {
  const rate = draftedTokens === 0 ? null : Math.round((acceptedTokens / draftedTokens) * 1000) / 1000;
  return { level, drafted_tokens: draftedTokens, accepted_tokens: acceptedTokens, acceptance_rate: rate };
}

function retrievalObject({ chunks, chunksOf, tokens, rankedBy, questionFrom, documentsFrom, ms }: NonNullable<PlannedSpeculation['retrieval']>): object {
  return { chunks, chunks_of: chunksOf, tokens, ranked_by: rankedBy, question_from: questionFrom, documents_from: documentsFrom, ms: Math.round(ms * 1000) / 1000 };
}
