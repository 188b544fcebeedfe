/**
 * THE table of errors that the API answers, and ApiError, which carries one. Handlers throw; error-replies.ts turns
 * what was thrown into a response, sse.ts into a frame. docs/errors.md is generated from the table. Knows no Fastify.
 */
import type { FailureCode } from '../scheduler/messages.ts';

interface ErrorEntry {
  readonly status: number;
  readonly type: 'invalid_request_error' | 'server_error' | 'requests' | 'tokens';
  /** {name} is filled from the values that the thrower gives. */
  readonly sentence: string;
  /** A repetition of the same request can succeed; else the answer says `x-should-retry: false`. */
  readonly retry: boolean;
}

const refused = { status: 400, type: 'invalid_request_error', retry: false } as const;
const overloaded = { status: 429, retry: true } as const;

export const errorTable = {
  invalid_request: { ...refused, sentence: 'The request is malformed: {reason}' },
  invalid_json: { ...refused, sentence: 'The request body is not valid JSON.' },
  missing_required_parameter: { ...refused, sentence: "Missing required parameter: '{param}'." },
  unknown_parameter: { ...refused, sentence: "Unknown parameter: '{param}'." },
  unsupported_parameter: { ...refused, sentence: "Unsupported parameter: '{param}' is not supported here. {reason}" },
  unsupported_value: { ...refused, sentence: "Unsupported value: '{param}' cannot have this value. {reason}" },
  invalid_type: { ...refused, sentence: "Invalid type for '{param}': expected {expected}, but got {got} instead." },
  invalid_value: { ...refused, sentence: "Invalid value for '{param}': {reason}" },
  integer_below_min_value: { ...refused, sentence: "Invalid '{param}': integer below minimum value. Expected a value >= {limit}, but got {got} instead." },
  integer_above_max_value: { ...refused, sentence: "Invalid '{param}': integer above maximum value. Expected a value <= {limit}, but got {got} instead." },
  decimal_below_min_value: { ...refused, sentence: "Invalid '{param}': decimal below minimum value. Expected a value >= {limit}, but got {got} instead." },
  decimal_above_max_value: { ...refused, sentence: "Invalid '{param}': decimal above maximum value. Expected a value <= {limit}, but got {got} instead." },
  empty_array: { ...refused, sentence: "Invalid '{param}': empty array. Expected an array with minimum length {limit}, but got an array with length {got} instead." },
  array_above_max_length: { ...refused, sentence: "Invalid '{param}': array too long. Expected an array with maximum length {limit}, but got an array with length {got} instead." },
  empty_string: { ...refused, sentence: "Invalid '{param}': string too short. Expected a string with minimum length {limit}, but got a string with length {got} instead." },
  string_above_max_length: { ...refused, sentence: "Invalid '{param}': string too long. Expected a string with maximum length {limit}, but got a string with length {got} instead." },
  context_length_exceeded: { ...refused, sentence: "This model's maximum context length is {limit} tokens. However, {reason}" },
  chat_template_failed: { ...refused, sentence: 'The chat template of the model refused these messages: {reason}' },
  kv_capacity: { ...refused, sentence: 'The request does not fit the KV memory of this server, even alone: {reason}' },
  missing_api_key: { ...refused, status: 401, sentence: "You didn't provide an API key. Send it in the Authorization header: Authorization: Bearer YOUR_KEY." },
  invalid_api_key: { ...refused, status: 401, sentence: 'Incorrect API key provided.' },
  model_not_found: { ...refused, status: 404, sentence: 'The model `{model}` does not exist or you do not have access to it.' },
  unknown_url: { ...refused, status: 404, sentence: 'Unknown request URL: {method} {url}. /openapi.json lists what there is.' },
  method_not_supported: { ...refused, status: 405, sentence: 'Not allowed to {method} on {url}; it answers {allow}.' },
  request_timeout: { status: 408, type: 'invalid_request_error', retry: true, sentence: 'The request did not arrive in time.' },
  request_too_large: { ...refused, status: 413, sentence: 'The request body is larger than {limit} bytes, the limit of this server (--body-limit-bytes).' },
  unsupported_media_type: { ...refused, status: 415, sentence: 'The request body must be JSON; send Content-Type: application/json.' },
  headers_too_large: { ...refused, status: 431, sentence: 'The header fields and the URL of the request are too long.' },
  queue_full: { ...overloaded, type: 'requests', sentence: 'Too many requests are waiting: {got}, and the limit is {limit}. Try again in {seconds} s.' },
  token_queue_full: { ...overloaded, type: 'tokens', sentence: 'Too many prompt tokens are waiting: {got} with this request, and the limit is {limit}. Try again in {seconds} s.' },
  deadline_unreachable: { ...overloaded, type: 'requests', sentence: 'The deadline of {deadlineMs} ms cannot be met: the work that waits takes about {expectedMs} ms.' },
  aborted: { status: 499, type: 'invalid_request_error', retry: false, sentence: 'The client closed the request.' },
  internal_error: { status: 500, type: 'server_error', retry: true, sentence: 'The server had an error while processing your request. Its log names this request by the x-request-id.' },
  engine_failed: { status: 500, type: 'server_error', retry: true, sentence: 'The engine failed while it worked on your request; it is started again by itself. You can retry.' },
  engine_unavailable: { status: 503, type: 'server_error', retry: true, sentence: 'The engine cannot take requests now: it is {state}.' },
  shutting_down: { status: 503, type: 'server_error', retry: true, sentence: 'The server is shutting down.' },
  deadline_exceeded: { status: 504, type: 'server_error', retry: false, sentence: 'The request was not finished by its deadline: {reason}' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;

type Placeholders<Sentence> = Sentence extends `${string}{${infer Name}}${infer Rest}` ? Name | Placeholders<Rest> : never;
/** What the sentence of `Code` must be filled with. */
export type ErrorValues<Code extends ErrorCode> = Readonly<Record<Placeholders<(typeof errorTable)[Code]['sentence']>, string | number>>;

export interface ErrorDetails {
  /** Which parameter is at fault, as a path: messages[0].role. Default: values.param, else null. */
  readonly param?: string | null;
  /** Sent as Retry-After (429 and 503). Default 1000 for these. */
  readonly retryAfterMs?: number;
}

/** An error that the client may read. `new ApiError('model_not_found', { model })`. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly retry: boolean;
  /** null unless status is 429 or 503. */
  readonly retryAfterMs: number | null;

  constructor(code: ErrorCode, values: Readonly<Record<string, string | number>>, details: ErrorDetails = {}) {
    const entry: ErrorEntry = errorTable[code];
    super(fill(entry.sentence, values));
    this.code = code;
    this.status = entry.status;
    this.type = entry.type;
    this.param = details.param ?? (typeof values['param'] === 'string' ? values['param'] : null);
    this.retry = entry.retry;
    this.retryAfterMs = entry.status === 429 || entry.status === 503 ? (details.retryAfterMs ?? 1000) : null;
  }
}

/** An ApiError whose values the compiler checks against the sentence. */
export function apiError<Code extends ErrorCode>(code: Code, values: ErrorValues<Code>, details?: ErrorDetails): ApiError {
  return new ApiError(code, values, details);
}

/** Thrown by EngineClient.submit unless its state is 'ready'. */
export class EngineUnavailableError extends ApiError {
  constructor(state: string) {
    super('engine_unavailable', { state }, { retryAfterMs: 2000 });
  }
}

/** What a `failed` event of the engine is to the client. `message` is the scheduler's sentence. */
export function failureError(code: FailureCode, message: string): ApiError {
  return new ApiError(code, { reason: message });
}

export interface ErrorBody {
  readonly error: { readonly message: string; readonly type: string; readonly param: string | null; readonly code: string };
}

/** OpenAI's envelope. */
export function toErrorBody(error: ApiError): ErrorBody {
  return { error: { message: error.message, type: error.type, param: error.param, code: error.code } };
}

/** Anything thrown -> an ApiError; what is not one is ours, and its text stays inside. */
export function toApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : apiError('internal_error', {});
}

function fill(sentence: string, values: Readonly<Record<string, string | number>>): string {
  return sentence.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`the error sentence "${sentence}" needs a value for ${name}`);
    return String(value);
  });
}
