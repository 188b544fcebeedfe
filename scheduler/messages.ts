/**
 * Everything that crosses the border between the HTTP process and the engine process: token ids in,
 * token ids out. Plain data that structured clone copies; no text, no HTTP. Used by server/engine-client.ts
 * on one side and scheduler/process.ts on the other.
 */
import type { EngineSpec } from '../engine/engine.ts';
import type { AttentionSettings } from '../kvcache/page-lists/page-list.ts';

// The HTTP side sees the engine side through this file only.
export type { AttentionSettings, EngineSpec };

/** Settings that count pages are rounded to this before they cross. */
export { MAX_MOVED_PAGES, PAGE_TOKENS } from '../kvcache/page-lists/page-list.ts';

export interface SamplingSettings {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** 0 is off. */
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 is off. Over prompt and output, as in Hugging Face. */
  readonly repetitionPenalty: number;
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
  /** null: drawn at random. Choice i of a request uses seed + i. */
  readonly seed: number | null;
}

/** How tokens are drafted before the target verifies them. Validated before it gets here. */
export interface SpeculationSettings {
  readonly speculation: 'off' | 'ngram' | 'triforce' | 'rapid';
  /** Most tokens drafted for one target pass; fewer are drafted where fewer pay. */
  readonly draftTokens: number;
  /** triforce: tokens that the middle level reads, whole pages. */
  readonly draftBudget: number;
  /**
   * triforce: what drafts for the middle level; 'auto' takes the draft model if there is one, else n-grams. rapid: what drafts;
   * 'auto' takes the draft model if there is one, else the target itself, as 'none' does.
   */
  readonly draftLevel: 'auto' | 'model' | 'ngram' | 'none';
  /** rapid: what the drafter reads instead of the prompt: the retrieved context and the question. Empty otherwise. */
  readonly draftPromptIds: Int32Array;
  /** rapid: strength of knowledge transfer; 0 keeps the target's distribution exactly. */
  readonly eta: number;
  /** Draft also where it is not expected to pay: for measurements. */
  readonly force: boolean;
}

export const NO_SPECULATION: SpeculationSettings = {
  speculation: 'off', draftTokens: 0, draftBudget: 0, draftLevel: 'none', draftPromptIds: new Int32Array(0), eta: 0, force: false,
};

/** One accepted HTTP request (one prompt). Ends exactly once per choice: `finished` or `failed`. */
export interface GenerationRequest {
  readonly id: number;
  /** Whom fair queueing counts this for (an API key's name). */
  readonly tenant: string;
  readonly promptIds: Int32Array;
  /** n: sequences that share the prompt. */
  readonly choices: number;
  readonly maxTokens: number;
  readonly minTokens: number;
  /** Tokens that end a sequence (end-of-text ids and the request's stop_token_ids), unless ignoreEos drops the former. */
  readonly stopTokenIds: readonly number[];
  readonly sampling: SamplingSettings;
  /** How many alternatives to report with each token; null reports none, 0 the chosen token only. */
  readonly logprobs: number | null;
  /** Report the log-probabilities of the prompt's own tokens too (echo), from this one (1 or later) on; null reports none. */
  readonly promptLogprobsFrom: number | null;
  readonly attention: AttentionSettings;
  readonly speculation: SpeculationSettings;
  /** Lower runs first (vLLM's meaning); default 0. */
  readonly priority: number;
  /** Milliseconds after submission by which it must have finished; null is no deadline. */
  readonly deadlineMs: number | null;
  /** Sequences share prefix pages only under the same salt. */
  readonly cacheSalt: string;
  readonly progress: boolean;
}

export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
  /** Most likely tokens, best first. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[];
}

/** What one level of speculation did. */
export interface DraftLevelMetrics {
  /** 'ngram', 'model', 'middle' or 'rapid'. */
  readonly level: string;
  readonly draftedTokens: number;
  /** Of these, accepted by the level that verifies it. */
  readonly acceptedTokens: number;
}

export interface SpeculationMetrics {
  /** Passes of the target that verified at least one drafted token. */
  readonly verifiedPasses: number;
  /** Passes of the target that drew one token alone, because nothing was drafted. */
  readonly plainPasses: number;
  /** Lowest level first; the last is what the target verified. */
  readonly levels: readonly DraftLevelMetrics[];
  /** Why there was no draft in plain passes, if most tokens came of them; null otherwise. */
  readonly offReason: string | null;
}

/** What was done for one choice; the scheduler fills it, the answer shows it. Times in milliseconds. */
export interface SequenceMetrics {
  readonly queueMs: number;
  readonly prefillMs: number;
  /** From submission to the first token. */
  readonly firstTokenMs: number;
  readonly decodeMs: number;
  /** Longest gap between two tokens of this choice. */
  readonly longestGapMs: number;
  readonly promptTokens: number;
  /** Prompt tokens whose KV came from the prefix cache. */
  readonly cachedTokens: number;
  /** Tokens computed in prefill, recomputation not included. */
  readonly computedTokens: number;
  /** Tokens computed again after preemptions. */
  readonly recomputedTokens: number;
  readonly preemptions: number;
  readonly generatedTokens: number;
  /** Mean over decode steps, layers and KV heads of the tokens that attention read. */
  readonly attendedTokensPerStep: number;
  /** Mean over decode steps of pages read, summed over layers and KV heads. */
  readonly pagesReadPerStep: number;
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  /** null when speculation was not asked for. */
  readonly speculation: SpeculationMetrics | null;
  readonly exactness: 'exact' | 'approximate';
  /** Why approximate; null when exact. */
  readonly exactnessReason: string | null;
}

export type FinishReason = 'stop' | 'length';

/** Why an accepted request failed. server/errors.ts gives each its status and sentence. */
export type FailureCode = 'deadline_exceeded' | 'kv_capacity' | 'engine_failed' | 'shutting_down' | 'aborted';

export type SequenceEvent =
  /** First chunk of the request was scheduled. */
  | { readonly type: 'started'; readonly id: number; readonly cachedTokens: number; readonly queueMs: number }
  /** Prefill progress, if asked for. */
  | { readonly type: 'progress'; readonly id: number; readonly total: number; readonly cached: number; readonly processed: number; readonly timeMs: number }
  /** Log-probabilities of the prompt's next tokens, from promptLogprobsFrom on (token 0 has none), if asked for: as they are computed, all of them before the request's tokens. */
  | { readonly type: 'prompt'; readonly id: number; readonly logprobs: readonly TokenLogprob[] }
  | { readonly type: 'tokens'; readonly id: number; readonly choice: number; readonly tokens: readonly number[]; readonly logprobs: readonly TokenLogprob[] | null }
  | { readonly type: 'preempted'; readonly id: number; readonly choice: number }
  /** The stop token itself, if one ended it, is reported in stopToken and was not sent in `tokens`. */
  | { readonly type: 'finished'; readonly id: number; readonly choice: number; readonly reason: FinishReason; readonly stopToken: number | null; readonly metrics: SequenceMetrics }
  | { readonly type: 'failed'; readonly id: number; readonly choice: number; readonly code: FailureCode; readonly message: string };

/** State of the engine side after a step; for metrics and admission. */
export interface EngineGauges {
  readonly runningSequences: number;
  readonly waitingSequences: number;
  /** Prompt tokens of running and waiting sequences still to be computed. */
  readonly prefillBacklogTokens: number;
  /** Moving averages; 0 until measured. */
  readonly prefillTokensPerSecond: number;
  readonly decodeStepMs: number;
  readonly pagesTotal: number;
  /** Held by live sequences. */
  readonly pagesHeld: number;
  /** Held by the prefix cache only. */
  readonly pagesCached: number;
  readonly pagesFree: number;
}

/** What one step did; counters to add up. */
export interface StepCounters {
  readonly stepMs: number;
  /** Of it, a GPU's work; 0 on a CPU. */
  readonly deviceMs: number;
  readonly prefillTokens: number;
  readonly decodeTokens: number;
  readonly recomputedTokens: number;
  readonly prefixQueryTokens: number;
  readonly prefixHitTokens: number;
  readonly preemptions: number;
  readonly pagesRead: number;
  readonly pagesScored: number;
  /** Tokens that attention read in decode, mean over layers and heads, summed over sequences. */
  readonly attendedTokens: number;
  /** Passes of a sequence that verified drafted tokens. */
  readonly draftPasses: number;
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

export type ToEngine =
  | { readonly type: 'submit'; readonly request: GenerationRequest }
  /**
   * Ends a request, or one choice of it. 'stop': the text side found a stop string, the choice is `finished`
   * with reason 'stop'. 'client': the reader has gone, nothing more is sent for it (no event).
   */
  | { readonly type: 'abort'; readonly id: number; readonly choice: number | null; readonly reason: 'stop' | 'client' }
  | { readonly type: 'close' };

export type FromEngine =
  | { readonly type: 'ready'; readonly spec: EngineSpec; readonly kvTokens: number; readonly gauges: EngineGauges }
  | { readonly type: 'step'; readonly events: readonly SequenceEvent[]; readonly gauges: EngineGauges; readonly counters: StepCounters }
  /** The engine could not be built or a step failed for good; the process exits after it. */
  | { readonly type: 'fatal'; readonly message: string };

/** How the engine process is started: the part of the configuration it needs. Plain data. */
export interface EngineProcessOptions {
  readonly engine: 'auto' | 'onnx' | 'cuda' | 'fake' | 'reference';
  readonly model: string;
  /** Folder of the checkpoint that drafts; '' loads none. */
  readonly draftModel: string;
  readonly precision: string;
  readonly kvPrecision: string;
  /** Folder of the CUDA libraries; '' looks where they usually lie. */
  readonly cudaLibraries: string;
  readonly cudaKernels: 'plain' | 'fast';
  readonly threads: number;
  /** KV memory in tokens; 0 lets the engine choose. */
  readonly kvTokens: number;
  readonly maxModelLen: number;
  readonly maxSequences: number;
  /** Tokens per step at most. */
  readonly stepTokens: number;
  /** Wanted bound on the gap between two tokens of a running stream while others prefill. */
  readonly targetGapMs: number;
  readonly prefixCache: boolean;
  /** Head file; '' looks for heads.json beside the model, then in the cache folder. */
  readonly headFile: string;
  /** Fake engine: milliseconds per step, 0 for none. */
  readonly fakeStepMs: number;
}
