/**
 * A request's drafting fields over the server's defaults, and which of them go together. What a request asks and cannot
 * have is refused; a default that does not fit the request only drafts nothing, and the answer says why. Pure. Knows
 * the rules between the settings, no drafter. Called by settings.ts, and by create-services.ts for the defaults.
 */
import type { Config } from '../../config/options.ts';
import type { LongContext } from '../../routes/schemas.ts';
import type { SpeculationSettings } from '../../scheduler/messages.ts';
import { apiError } from '../errors.ts';
import { wholePages, type AttentionSettings } from './attention.ts';
import type { Prompts } from './prompts.ts';

export type SpeculationKind = SpeculationSettings['speculation'];
export type SpeculationDefaults = Pick<Config, 'speculation' | 'draftModel' | 'draftTokens' | 'draftBudget' | 'ragTokens' | 'ragChunkTokens'>;

/** What rapid retrieves. */
export interface RetrievalSettings {
  readonly question: string | null;
  readonly documents: readonly string[] | null;
  readonly ragTokens: number;
  readonly ragChunkTokens: number;
}

/** What a request asks, before its prompt is read. */
export interface AskedSpeculation {
  readonly settings: Omit<SpeculationSettings, 'draftPromptIds'>;
  /** The request asks for it, not the server's default. */
  readonly explicit: boolean;
  /** Why nothing will be drafted; null when something may be. */
  readonly offReason: string | null;
  readonly retrieval: RetrievalSettings;
}

type Attention = AttentionSettings['attention'];

const drafting = ['ngram', 'triforce', 'rapid'] as const;

/** Which kinds read a field. */
const readers: Partial<Record<keyof LongContext, readonly SpeculationKind[]>> = {
  draft_tokens: drafting, force_speculation: drafting,
  draft_budget: ['triforce'], draft_level: ['triforce', 'rapid'],
  question: ['rapid'], documents: ['rapid'], rag_tokens: ['rapid'], rag_chunk_tokens: ['rapid'], eta: ['rapid'],
};

/** Token counts of pages are rounded up to whole ones. Throws unsupported_value or invalid_value. */
export function speculationSettings(asked: LongContext, defaults: SpeculationDefaults, attention: Attention): AskedSpeculation {
  const speculation = asked.speculation ?? defaults.speculation;
  const explicit = asked.speculation !== undefined;
  const misfit = misfitOf(speculation, attention);
  if (explicit && misfit !== null) throw apiError('unsupported_value', { param: 'long_context.speculation', reason: misfit });
  refuseUnreadFields(asked, speculation);
  refuseDraftLevel(asked, speculation, defaults);
  return {
    settings: {
      speculation,
      draftTokens: asked.draft_tokens ?? defaults.draftTokens,
      draftBudget: wholePages(asked.draft_budget ?? defaults.draftBudget),
      draftLevel: asked.draft_level ?? 'auto',
      eta: asked.eta ?? 0,
      force: asked.force_speculation ?? false,
    },
    explicit,
    offReason: misfit,
    retrieval: retrievalSettings(asked, defaults),
  };
}

/** Why an operator's defaults contradict each other; null when they do not. */
export function contradiction({ speculation, attention, ragTokens, ragChunkTokens }: SpeculationDefaults & { readonly attention: Attention }): string | null {
  if (ragChunkTokens > ragTokens) return `--rag-chunk-tokens ${ragChunkTokens} is more than --rag-tokens ${ragTokens}.`;
  return misfitOf(speculation, attention);
}

/** Rapid finds question and document in a conversation; a raw prompt has none, so it must be given both. */
export function fittedTo(prompts: Pick<Prompts, 'noun' | 'count'>, asked: AskedSpeculation): AskedSpeculation {
  const { settings, explicit, retrieval, offReason } = asked;
  if (settings.speculation !== 'rapid' || prompts.noun === 'messages' || offReason !== null) return asked;
  const absent = (['documents', 'question'] as const).find((field) => retrieval[field] === null);
  if (absent === undefined && prompts.count === 1) return asked;
  const reason = absent === undefined ? "Speculation 'rapid' drafts for one prompt at a time." : "Speculation 'rapid' on a raw prompt needs long_context.documents and long_context.question.";
  if (explicit) throw apiError('unsupported_value', { param: absent === undefined ? 'prompt' : `long_context.${absent}`, reason });
  return { ...asked, offReason: reason };
}

function misfitOf(speculation: SpeculationKind, attention: Attention): string | null {
  if (speculation === 'off' || speculation === 'ngram') return null;
  if (attention === 'streaming') return `With attention 'streaming' only 'off' and 'ngram' are possible, not '${speculation}'.`;
  if (speculation === 'rapid' || attention === 'dense') return null;
  return "'triforce' needs attention 'dense': its middle level reads what 'lserve' reads already.";
}

/** A field that nothing reads is a misunderstanding. */
function refuseUnreadFields(asked: LongContext, speculation: SpeculationKind): void {
  for (const [field, kinds] of Object.entries(readers)) {
    if (asked[field as keyof LongContext] === undefined || kinds.includes(speculation)) continue;
    const names = kinds.map((kind) => `'${kind}'`).join(', ');
    throw apiError('unsupported_value', { param: `long_context.${field}`, reason: `Only speculation ${names} reads it, and here it is '${speculation}'.` });
  }
}

function refuseDraftLevel({ draft_level: level }: LongContext, speculation: SpeculationKind, { draftModel }: SpeculationDefaults): void {
  const refuse = (reason: string): never => { throw apiError('unsupported_value', { param: 'long_context.draft_level', reason }); };
  if (level === 'model' && draftModel === '') refuse('This server has no draft model (--draft-model).');
  if (level === 'ngram' && speculation === 'rapid') refuse("With 'rapid' a model drafts: the draft model, or with 'none' the served one.");
}

function retrievalSettings(asked: LongContext, defaults: SpeculationDefaults): RetrievalSettings {
  const ragTokens = asked.rag_tokens ?? defaults.ragTokens;
  const ragChunkTokens = asked.rag_chunk_tokens ?? Math.min(defaults.ragChunkTokens, ragTokens);
  if (ragChunkTokens > ragTokens) {
    throw apiError('invalid_value', { param: 'long_context.rag_chunk_tokens', reason: `${ragChunkTokens} is more than the ${ragTokens} of rag_tokens.` });
  }
  return { question: asked.question ?? null, documents: asked.documents ?? null, ragTokens, ragChunkTokens };
}
