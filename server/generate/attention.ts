/**
 * A request's `long_context` over the server's defaults: the settings for the engine, and the same in the API's words
 * for the answer. Pure. Knows no policy's inner workings, only which settings each one reads. Called by settings.ts.
 */
import type { Config } from '../../config/options.ts';
import type { LongContext } from '../../routes/schemas.ts';
import { MAX_MOVED_PAGES, PAGE_TOKENS, type GenerationRequest } from '../../scheduler/messages.ts';
import { apiError } from '../errors.ts';
import type { EngineClient } from '../generation.ts';

export type AttentionSettings = GenerationRequest['attention'];
export type AttentionDefaults = Pick<Config, keyof AttentionSettings | 'streamingSinkTokens'>;
export type HeadShape = Pick<NonNullable<EngineClient['spec']>, 'layers' | 'kvHeads' | 'headOrder'>;

/** Rounded up. */
export const wholePages = (tokens: number): number => Math.ceil(tokens / PAGE_TOKENS) * PAGE_TOKENS;

/** Token counts are rounded up to whole pages, the share of heads to whole heads. */
export function attentionSettings(asked: LongContext, defaults: AttentionDefaults, heads: HeadShape): AttentionSettings {
  const attention = asked.attention ?? defaults.attention;
  const sinkTokens = attention === 'streaming' ? defaults.streamingSinkTokens : defaults.sinkTokens;
  const settings: AttentionSettings = {
    attention,
    tokenBudget: wholePages(asked.token_budget ?? defaults.tokenBudget),
    sinkTokens: wholePages(asked.sink_tokens ?? sinkTokens),
    localTokens: wholePages(asked.local_tokens ?? defaults.localTokens),
    streamingHeads: wholeHeads(asked.streaming_heads ?? defaults.streamingHeads, heads),
    selectionInterval: asked.selection_interval ?? defaults.selectionInterval,
    renumberPositions: asked.renumber_positions ?? defaults.renumberPositions,
    selectionPerQueryHead: asked.selection_per_query_head ?? defaults.selectionPerQueryHead,
    sparsePrefill: asked.sparse_prefill ?? defaults.sparsePrefill,
  };
  refuseUnrankedHeads(settings, heads);
  refuseManyMovedSinks(settings);
  return settings;
}

/** What was applied, as the answer's `metrics.attention` shows it: only the settings that the policy reads. */
export function appliedAttention(settings: AttentionSettings): object {
  switch (settings.attention) {
    case 'dense': return { attention: 'dense' };
    case 'streaming': return {
      attention: 'streaming', sink_tokens: settings.sinkTokens, local_tokens: settings.localTokens,
      renumber_positions: settings.renumberPositions,
    };
    case 'lserve': return {
      attention: 'lserve', token_budget: settings.tokenBudget, sink_tokens: settings.sinkTokens, local_tokens: settings.localTokens,
      streaming_heads: settings.streamingHeads, selection_interval: settings.selectionInterval,
      selection_per_query_head: settings.selectionPerQueryHead, sparse_prefill: settings.sparsePrefill,
    };
  }
}

function wholeHeads(share: number, { layers, kvHeads }: HeadShape): number {
  return Math.round(share * layers * kvHeads) / (layers * kvHeads);
}

/** Renumbering moves every sink. */
function refuseManyMovedSinks({ attention, renumberPositions, sinkTokens }: AttentionSettings): void {
  const most = MAX_MOVED_PAGES * PAGE_TOKENS;
  if (attention !== 'streaming' || !renumberPositions || sinkTokens <= most) return;
  throw apiError('unsupported_value', {
    param: 'long_context.sink_tokens', reason: `With renumbered positions at most ${most} sink tokens are possible, got ${sinkTokens}.`,
  });
}

function refuseUnrankedHeads(settings: AttentionSettings, heads: HeadShape): void {
  if (settings.attention !== 'lserve' || settings.streamingHeads === 0 || heads.headOrder !== null) return;
  throw apiError('unsupported_value', {
    param: 'long_context.streaming_heads',
    reason: 'This model has no file that ranks its KV heads from streaming to retrieval, so it must be 0.',
  });
}
