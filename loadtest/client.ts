/**
 * HTTP client of an OpenAI-compatible server that notes when each piece of text arrived. Keeps
 * connections open between requests. Knows nothing of loads or reports; everything in loadtest/ speaks
 * through it.
 */
import { performance } from 'node:perf_hooks';
import { Pool, errors } from 'undici';
import { EventStreamParser } from './event-stream.ts';

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
}

/** What one streamed request gave. Times are performance.now() of this process. */
export interface StreamResult {
  /** HTTP status; null when no answer came at all. */
  readonly status: number | null;
  readonly sentMs: number;
  /** Arrival of each chunk that held text; role, progress and usage chunks do not count. [chunks] */
  readonly contentMs: readonly number[];
  readonly endMs: number;
  readonly text: string;
  readonly finishReason: string | null;
  readonly usage: Usage | null;
  readonly metrics: Readonly<Record<string, unknown>> | null;
  /** One sentence when the request failed, else null; a cancelled request has not failed. */
  readonly error: string | null;
  readonly cancelled: boolean;
}

export interface StreamOptions {
  readonly signal?: AbortSignal;
  /** Called at each piece of text with the number of pieces so far. */
  readonly onContent?: (chunks: number) => void;
  /** Called when the server tells how far it is: with `return_progress`, and with continuous usage. */
  readonly onPosition?: (position: Position) => void;
}

/** How far a request is, in tokens. */
export interface Position {
  /** Prompt tokens that are done. */
  readonly prefilled: number;
  readonly generated: number;
}

export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** The fields of a streamed chunk that are read here. Chat and plain completions differ in where the text is. */
interface StreamChunk {
  readonly choices?: readonly { readonly text?: string; readonly delta?: { readonly content?: string | null }; readonly finish_reason?: string | null }[];
  readonly usage?: Usage | null;
  readonly metrics?: Readonly<Record<string, unknown>> | null;
  readonly error?: { readonly message?: string };
  readonly prompt_progress?: { readonly processed: number };
}

export class Client {
  readonly #pool: Pool;
  readonly #headers: Record<string, string>;

  /** `baseUrl` may end in /v1, as OpenAI clients write it. */
  constructor(baseUrl: string, apiKey: string | null = null) {
    const url = new URL(baseUrl);
    this.#pool = new Pool(url.origin, { headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 60_000 });
    this.#headers = { 'content-type': 'application/json', ...(apiKey !== null && { authorization: `Bearer ${apiKey}` }) };
  }

  /** Never rejects: whatever happens is in the result. */
  async stream(path: string, body: object, options: StreamOptions = {}): Promise<StreamResult> {
    const reading = new StreamReading(options);
    try {
      const streamOptions = { include_usage: true, ...(options.onPosition && { continuous_usage_stats: true }) };
      const request = JSON.stringify({ ...body, stream: true, stream_options: streamOptions });
      reading.sentMs = performance.now();
      const response = await this.#pool.request({ path, method: 'POST', headers: this.#headers, body: request, signal: options.signal ?? null });
      reading.status = response.statusCode;
      if (response.statusCode !== 200) reading.error = errorSentence(response.statusCode, await response.body.text());
      else for await (const bytes of response.body) reading.push(bytes as Uint8Array);
    } catch (error) {
      reading.interrupted(error);
    }
    return reading.result();
  }

  /** The parsed answer. Throws HttpError when the status is not 200. */
  async post(path: string, body: object): Promise<unknown> {
    const response = await this.#pool.request({ path, method: 'POST', headers: this.#headers, body: JSON.stringify(body) });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new HttpError(response.statusCode, errorSentence(response.statusCode, text));
    return JSON.parse(text);
  }

  async get(path: string): Promise<{ status: number; text: string }> {
    const response = await this.#pool.request({ path, method: 'GET', headers: this.#headers });
    return { status: response.statusCode, text: await response.body.text() };
  }

  /** Ends open requests too. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}

/** The result of one stream while it grows. */
class StreamReading {
  readonly #parser = new EventStreamParser();
  readonly #options: StreamOptions;
  readonly #contentMs: number[] = [];
  readonly #pieces: string[] = [];
  #finishReason: string | null = null;
  #usage: Usage | null = null;
  #metrics: Readonly<Record<string, unknown>> | null = null;
  #cancelled = false;
  #done = false;
  sentMs = 0;
  status: number | null = null;
  error: string | null = null;

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  push(bytes: Uint8Array): void {
    const nowMs = performance.now();
    for (const data of this.#parser.push(bytes)) {
      if (data === '[DONE]') this.#done = true;
      else this.#chunk(JSON.parse(data) as StreamChunk, nowMs);
    }
  }

  #chunk(chunk: StreamChunk, nowMs: number): void {
    const choice = chunk.choices?.[0];
    const text = choice?.delta?.content ?? choice?.text ?? '';
    if (choice?.finish_reason) this.#finishReason = choice.finish_reason;
    if (chunk.usage) this.#usage = chunk.usage;
    this.#position(chunk);
    if (chunk.metrics) this.#metrics = chunk.metrics;
    if (chunk.error) this.error = chunk.error.message ?? 'the stream ended with an error that has no message';
    if (text === '') return;
    this.#contentMs.push(nowMs);
    this.#pieces.push(text);
    this.#options.onContent?.(this.#contentMs.length);
  }

  #position({ prompt_progress: progress, usage }: StreamChunk): void {
    if (progress) this.#options.onPosition?.({ prefilled: progress.processed, generated: 0 });
    else if (usage) this.#options.onPosition?.({ prefilled: usage.prompt_tokens, generated: usage.completion_tokens });
  }

  interrupted(error: unknown): void {
    this.#cancelled = error instanceof errors.RequestAbortedError || (error instanceof Error && error.name === 'AbortError');
    if (!this.#cancelled) this.error ??= error instanceof Error ? error.message : String(error);
  }

  result(): StreamResult {
    if (this.status === 200 && !this.#done && !this.#cancelled) this.error ??= 'the stream ended without [DONE]';
    return {
      status: this.status, sentMs: this.sentMs, contentMs: this.#contentMs, endMs: performance.now(),
      text: this.#pieces.join(''), finishReason: this.#finishReason, usage: this.#usage, metrics: this.#metrics,
      error: this.error, cancelled: this.#cancelled,
    };
  }
}

/** What an error body says: OpenAI's shape if it has it, else its beginning. */
function errorSentence(status: number, body: string): string {
  try {
    const message = (JSON.parse(body) as StreamChunk).error?.message;
    if (message !== undefined) return `${status}: ${message}`;
  } catch {
    // Not JSON: a proxy's page or an empty body. Shown as it is.
  }
  return `${status}: ${body.slice(0, 200)}`;
}
