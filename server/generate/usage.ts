/**
 * The numbers of an answer: OpenAI's `usage` and our `metrics`, summed over prompts and choices. Pure. Knows what the
 * scheduler reports and what the API calls it. Used by the formats and by stream.ts.
 */
import type { SequenceMetrics } from '../../scheduler/messages.ts';

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  readonly completion_tokens_details: {
    readonly reasoning_tokens: number;
    readonly accepted_prediction_tokens: number;
    readonly rejected_prediction_tokens: number;
  };
}

export interface TokenCounts {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

export function usage(counts: TokenCounts): Usage {
  return {
    prompt_tokens: counts.promptTokens,
    completion_tokens: counts.completionTokens,
    total_tokens: counts.promptTokens + counts.completionTokens,
    prompt_tokens_details: { cached_tokens: counts.cachedTokens },
    completion_tokens_details: {
      reasoning_tokens: 0,
      accepted_prediction_tokens: counts.acceptedTokens,
      rejected_prediction_tokens: counts.draftedTokens - counts.acceptedTokens,
    },
  };
}

export interface AnswerMetrics {
  readonly tokenizeMs: number;
  readonly attention: object;
  readonly speculation: object;
  /** One per finished choice, in index order. */
  readonly choices: readonly SequenceMetrics[];
}

/**
 * The `metrics` object: times are the longest of the choices, counts their sums, means their means; `choices` holds
 * each one's own numbers when there are several.
 */
export function metricsObject({ tokenizeMs, attention, speculation, choices }: AnswerMetrics): object {
  const approximate = choices.find(({ exactness }) => exactness === 'approximate');
  return {
    tokenize_ms: rounded(tokenizeMs),
    ...Object.fromEntries(Object.entries(fields).map(([name, { read, combine }]) => [name, rounded(combine(choices.map(read)))])),
    attention,
    speculation,
    exactness: approximate === undefined ? 'exact' : 'approximate',
    exactness_reason: approximate?.exactnessReason ?? null,
    ...(choices.length > 1 ? { choices: choices.map(choiceObject) } : {}),
  };
}

const longest = (values: readonly number[]): number => values.reduce((most, value) => Math.max(most, value), 0);
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const mean = (values: readonly number[]): number => values.length === 0 ? 0 : sum(values) / values.length;
const rounded = (value: number): number => Math.round(value * 1000) / 1000;

interface Field {
  readonly read: (metrics: SequenceMetrics) => number;
  readonly combine: (values: readonly number[]) => number;
}

const fields: Record<string, Field> = {
  queue_ms: { read: (m) => m.queueMs, combine: longest },
  prefill_ms: { read: (m) => m.prefillMs, combine: longest },
  first_token_ms: { read: (m) => m.firstTokenMs, combine: longest },
  decode_ms: { read: (m) => m.decodeMs, combine: longest },
  longest_gap_ms: { read: (m) => m.longestGapMs, combine: longest },
  prompt_tokens: { read: (m) => m.promptTokens, combine: sum },
  cached_tokens: { read: (m) => m.cachedTokens, combine: sum },
  computed_tokens: { read: (m) => m.computedTokens, combine: sum },
  recomputed_tokens: { read: (m) => m.recomputedTokens, combine: sum },
  preemptions: { read: (m) => m.preemptions, combine: sum },
  generated_tokens: { read: (m) => m.generatedTokens, combine: sum },
  attended_tokens_per_step: { read: (m) => m.attendedTokensPerStep, combine: mean },
  pages_read_per_step: { read: (m) => m.pagesReadPerStep, combine: mean },
  drafted_tokens: { read: (m) => m.draftedTokens, combine: sum },
  accepted_tokens: { read: (m) => m.acceptedTokens, combine: sum },
};

function choiceObject(metrics: SequenceMetrics, index: number): object {
  const numbers = Object.entries(fields).map(([name, { read }]) => [name, rounded(read(metrics))] as const);
  return { index, ...Object.fromEntries<number>(numbers), exactness: metrics.exactness, exactness_reason: metrics.exactnessReason };
}
