/**
 * From what a request asks to what the engine is sent: with rapid the prompt of the drafter is retrieved here, once per
 * request, where the prompt is long enough. Knows the retrieval service, no engine. Called by generate.ts once the
 * prompts are tokenised.
 */
import type { RetrievalReport } from '../../retrieval/retrieve.ts';
import type { RetrievalService } from '../../retrieval/retrieval-service.ts';
import { NO_SPECULATION, type SpeculationSettings } from '../../scheduler/messages.ts';
import { apiError } from '../errors.ts';
import type { EncodedPrompt, Prompts } from './prompts.ts';
import type { AskedSpeculation, RetrievalSettings } from './speculation.ts';

export interface PlannedSpeculation {
  readonly asked: AskedSpeculation;
  /** What the engine is sent. */
  readonly settings: SpeculationSettings;
  /** Why nothing is drafted, if that is known already. */
  readonly offReason: string | null;
  /** null where nothing was retrieved. */
  readonly retrieval: (RetrievalReport & { readonly ms: number }) | null;
}

export interface DraftQuestion {
  readonly asked: AskedSpeculation;
  readonly prompts: Prompts;
  /** [prompts] */
  readonly encoded: readonly EncodedPrompt[];
}

/** Documents of more bytes than this for each token of the prompt cannot stand in it. */
const MAX_BYTES_PER_TOKEN = 64;

export async function planSpeculation(retrieval: RetrievalService, { asked, prompts, encoded }: DraftQuestion): Promise<PlannedSpeculation> {
  if (asked.offReason !== null || asked.settings.speculation === 'off') return off(asked, asked.offReason);
  if (asked.settings.speculation === 'rapid') return planRapid(retrieval, { asked, prompts, promptTokens: encoded[0]!.ids.length });
  return { asked, settings: { ...asked.settings, draftPromptIds: NO_SPECULATION.draftPromptIds }, offReason: null, retrieval: null };
}

interface RapidQuestion {
  readonly asked: AskedSpeculation;
  readonly prompts: Prompts;
  readonly promptTokens: number;
}

async function planRapid(service: RetrievalService, { asked, prompts, promptTokens }: RapidQuestion): Promise<PlannedSpeculation> {
  const { question, documents, ragTokens, ragChunkTokens } = asked.retrieval;
  if (promptTokens <= 2 * ragTokens) return off(asked, `the prompt has ${promptTokens} tokens, and rapid drafts for more than twice rag_tokens (${ragTokens})`);
  checkDocuments(asked.retrieval, promptTokens);
  const startMs = performance.now();
  const retrieved = await service.retrieve({ conversation: prompts.conversation, question, documents, budgetTokens: ragTokens, chunkTokens: ragChunkTokens });
  const ms = performance.now() - startMs;
  if (retrieved.promptIds === null) return off(asked, retrieved.reason);
  const { promptIds: draftPromptIds, report } = retrieved;
  if (draftPromptIds.length >= promptTokens) return off(asked, `what the drafter would read has ${draftPromptIds.length} tokens, no fewer than the prompt's ${promptTokens}`);
  return { asked, settings: { ...asked.settings, draftPromptIds }, offReason: null, retrieval: { ...report, ms } };
}

function checkDocuments({ documents }: RetrievalSettings, promptTokens: number): void {
  const bytes = (documents ?? []).reduce((total, document) => total + Buffer.byteLength(document), 0);
  if (bytes <= MAX_BYTES_PER_TOKEN * promptTokens) return;
  throw apiError('invalid_value', { param: 'long_context.documents', reason: `they have ${bytes} bytes, more than a prompt of ${promptTokens} tokens can hold.` });
}

function off(asked: AskedSpeculation, offReason: string | null): PlannedSpeculation {
  return { asked, settings: NO_SPECULATION, offReason, retrieval: null };
}
