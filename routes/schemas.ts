/**
 * The parameters that both generation endpoints share, as TypeBox schemas: one object is the validation, the
 * TypeScript type and the OpenAPI text. Knows no defaults of the server and no model: what needs those is
 * checked in server/generate/. Unions are written as type lists, so that a wrong value gives one error, not one
 * per alternative. Used by schemas-chat.ts and schemas-completions.ts.
 */
import { Type, type Static, type TSchema } from 'typebox';

/** The largest count of tokens a request may name; endless generation ends here. */
export const MAX_TOKENS = 10_000_000;

interface Bounds {
  readonly minimum: number;
  readonly maximum: number;
}

const optionalNumber = (bounds: Bounds, description: string) =>
  Type.Optional(Type.Unsafe<number | null>({ type: ['number', 'null'], ...bounds, description }));

export const optionalInteger = (bounds: Bounds, description: string) =>
  Type.Optional(Type.Unsafe<number | null>({ type: ['integer', 'null'], ...bounds, description }));

export const optionalBoolean = (description: string) =>
  Type.Optional(Type.Unsafe<boolean | null>({ type: ['boolean', 'null'], description }));

export const optionalString = (maxLength: number, description: string) =>
  Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength, description }));

const optionalTokens = (maxItems: number, description: string) =>
  Type.Optional(Type.Unsafe<number[] | null>({
    type: ['array', 'null'], maxItems, items: { type: 'integer', minimum: 0, maximum: MAX_TOKENS }, description,
  }));

/** Accepted for compatibility and not looked into. */
export const accepted = () => Type.Optional(Type.Unknown({ description: 'Accepted, has no effect.' }));

const longContext = {
  attention: Type.Optional(Type.Unsafe<'dense' | 'streaming' | 'lserve'>({
    type: 'string', enum: ['dense', 'streaming', 'lserve'],
    description: 'Which pages attention reads: all of them; sinks and recent ones; or sinks, recent ones and the best-scoring ones of the middle.',
  })),
  token_budget: Type.Optional(Type.Integer({ minimum: 320, maximum: MAX_TOKENS, description: 'lserve: tokens that a retrieval head reads. Rounded up to whole pages of 64.' })),
  sink_tokens: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_536, description: 'Tokens at the start that are always read. Rounded up to whole pages.' })),
  local_tokens: Type.Optional(Type.Integer({ minimum: 64, maximum: MAX_TOKENS, description: 'Most recent tokens that streaming heads read. Rounded up to whole pages.' })),
  streaming_heads: Type.Optional(Type.Number({ minimum: 0, maximum: 1, description: 'lserve: share of KV heads that read only sinks and recent tokens.' })),
  selection_interval: Type.Optional(Type.Integer({ minimum: 1, maximum: 64, description: 'lserve: decode steps that share one selection of pages; every page border starts a new one.' })),
  renumber_positions: Type.Optional(Type.Boolean({ description: 'streaming: number positions inside the list of pages, for texts longer than the model was trained on.' })),
  sparse_prefill: Type.Optional(Type.Boolean({ description: 'lserve: whether prefill selects pages too.' })),
  selection_per_query_head: Type.Optional(Type.Boolean({ description: 'lserve: in decode each query head picks pages for itself, not together with those that share its KV head.' })),
  speculation: Type.Optional(Type.Unsafe<'off' | 'ngram' | 'triforce' | 'rapid'>({
    type: 'string', enum: ['off', 'ngram', 'triforce', 'rapid'],
    description: 'How tokens are drafted, for the model to verify: from the text itself; by the model with a short list of pages (with attention dense); by a drafter that reads what is retrieved from the prompt.',
  })),
  draft_tokens: Type.Optional(Type.Integer({ minimum: 1, maximum: 64, description: 'Most tokens drafted for one pass of the model.' })),
  draft_budget: Type.Optional(Type.Integer({ minimum: 320, maximum: MAX_TOKENS, description: 'triforce: tokens that the middle level reads. Rounded up to whole pages.' })),
  draft_level: Type.Optional(Type.Unsafe<'auto' | 'model' | 'ngram' | 'none'>({
    type: 'string', enum: ['auto', 'model', 'ngram', 'none'],
    description: 'triforce: what drafts for the middle level; auto takes the draft model if the server has one, else n-grams. rapid: what drafts; auto takes the draft model if the server has one, else the served model itself, as none does.',
  })),
  question: Type.Optional(Type.String({ minLength: 1, maxLength: 65_536, description: 'rapid: what to retrieve for; default: the last user message, or its last paragraph where it is long.' })),
  documents: Type.Optional(Type.Array(Type.String(), { minItems: 1, maxItems: 4096, description: 'rapid: the texts of the prompt to retrieve from; default: what is long in the conversation. They must stand in the prompt too.' })),
  rag_tokens: Type.Optional(Type.Integer({ minimum: 256, maximum: 65_536, description: 'rapid: tokens of retrieved text. A prompt of at most twice as many is decoded without a drafter.' })),
  rag_chunk_tokens: Type.Optional(Type.Integer({ minimum: 16, maximum: 4096, description: 'rapid: tokens of a chunk.' })),
  eta: Type.Optional(Type.Number({ minimum: 0, maximum: 100, description: 'rapid: how far the drafter may draw the answer towards its own; above 0 the answer is approximate.' })),
  force_speculation: Type.Optional(Type.Boolean({ description: 'Draft also where it is not expected to pay: for measurements.' })),
};

export const LongContext = Type.Object(longContext, {
  additionalProperties: false,
  description: 'How attention reads a long context, and how tokens are drafted. What is left out is the server\'s default; metrics.attention and metrics.speculation of the answer say what was applied.',
});
export type LongContext = Static<typeof LongContext>;

const StreamOptions = Type.Unsafe<{ include_usage?: boolean | null; continuous_usage_stats?: boolean | null } | null>({
  type: ['object', 'null'],
  properties: {
    include_usage: { type: ['boolean', 'null'], description: 'End the stream with a chunk that has the usage and no choices.' },
    continuous_usage_stats: { type: ['boolean', 'null'], description: 'Put the usage so far into every chunk.' },
  },
  description: 'Only with stream.',
});

const SafeInt64: Bounds = { minimum: -(2 ** 63), maximum: 2 ** 63 };

/** Parameters of both endpoints. Every number is bounded. */
export const sharedParameters = {
  model: optionalString(512, 'Name of the served model, as GET /v1/models lists it.'),
  temperature: optionalNumber({ minimum: 0, maximum: 2 }, 'Sampling temperature; 0 is greedy.'),
  top_p: optionalNumber({ minimum: 0, maximum: 1 }, 'Sample from the smallest set of tokens with this probability together.'),
  top_k: optionalInteger({ minimum: -1, maximum: 1_000_000 }, 'Sample from the k most likely tokens; 0 or -1 is off.'),
  min_p: optionalNumber({ minimum: 0, maximum: 1 }, 'Drop tokens below this share of the most likely token\'s probability.'),
  presence_penalty: optionalNumber({ minimum: -2, maximum: 2 }, 'Lowers tokens that were generated already.'),
  frequency_penalty: optionalNumber({ minimum: -2, maximum: 2 }, 'Lowers tokens by how often they were generated.'),
  repetition_penalty: optionalNumber({ minimum: 0.01, maximum: 10 }, 'Over prompt and output, as in Hugging Face; 1 is off.'),
  logit_bias: Type.Optional(Type.Unsafe<Record<string, number> | null>({
    type: ['object', 'null'], maxProperties: 1024, additionalProperties: { type: 'number', minimum: -100, maximum: 100 },
    description: 'Token id (as a string) to a number added to its logit.',
  })),
  seed: optionalInteger(SafeInt64, 'The same seed and request give the same tokens; choice i uses seed + i.'),
  n: optionalInteger({ minimum: 1, maximum: 128 }, 'Choices per prompt; they share the prompt\'s pages.'),
  stop: Type.Optional(Type.Unsafe<string | string[] | null>({
    type: ['string', 'array', 'null'], minLength: 1, maxLength: 4096, maxItems: 4, items: { type: 'string', minLength: 1, maxLength: 4096 },
    description: 'Up to 4 strings that end a choice.',
  })),
  stop_token_ids: optionalTokens(128, 'Tokens that end a choice.'),
  include_stop_str_in_output: optionalBoolean('Keep the stop string (or stop token) in the text.'),
  ignore_eos: optionalBoolean('Go on after the model\'s end-of-text tokens.'),
  min_tokens: optionalInteger({ minimum: 0, maximum: MAX_TOKENS }, 'No stop token before this many tokens.'),
  return_token_ids: optionalBoolean('Add token_ids and prompt_token_ids to the answer.'),
  stream: optionalBoolean('Answer with server-sent events.'),
  stream_options: Type.Optional(StreamOptions),
  return_progress: optionalBoolean('Stream prefill progress, and preemptions, as chunks without choices.'),
  priority: optionalInteger({ minimum: -1_000_000, maximum: 1_000_000 }, 'Lower runs first; default 0.'),
  deadline_ms: optionalInteger({ minimum: 1, maximum: 86_400_000 }, 'The answer must be complete this long after it arrived; refused at once if the backlog makes that impossible.'),
  cache_salt: optionalString(256, 'Requests share cached prefixes only under the same salt.'),
  prompt_cache_key: optionalString(256, 'Accepted as a hint. Any two requests with equal prefixes share them already; use cache_salt to keep prefixes apart.'),
  long_context: Type.Optional(Type.Unsafe<LongContext | null>({ ...LongContext, type: ['object', 'null'] })),
  user: accepted(),
  metadata: accepted(),
  store: accepted(),
  service_tier: accepted(),
  safety_identifier: accepted(),
  prompt_cache_retention: accepted(),
};

export type SharedBody = Static<Type.TObject<typeof sharedParameters>>;

/** Names in `body` that `schema` does not know: they are ignored, and the answer's header says so. */
export function unknownParameters(body: object, schema: TSchema): string[] {
  const known = (schema as { readonly properties?: object }).properties ?? {};
  return Object.keys(body).filter((name) => !Object.hasOwn(known, name));
}
