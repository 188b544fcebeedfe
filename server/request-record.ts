/**
 * What metrics keep of one request between its admission and its end: whoever reads its events shows them to
 * `see` and calls `end` when done. Made by Metrics.requestStarted; knows series, no HTTP.
 */
import type { SequenceEvent } from '../scheduler/messages.ts';
import type { Series } from './metric-series.ts';

export interface RequestFacts {
  /** performance.now() when the request arrived. */
  readonly arrivedMs: number;
  readonly promptTokens: number;
  readonly choices: number;
  readonly maxTokens: number;
}

type Finished = Extract<SequenceEvent, { type: 'finished' }>;

export class RequestRecord {
  readonly #series: Series;
  readonly #facts: RequestFacts;
  /** Per choice: performance.now() at its latest token. [choices] */
  readonly #tokenAtMs: (number | null)[];
  /** [choices] */
  readonly #ended: boolean[];
  #cachedTokens = 0;
  #promptCounted = false;
  #longestChoice = 0;
  #closed = false;

  constructor(series: Series, facts: RequestFacts) {
    this.#series = series;
    this.#facts = facts;
    this.#tokenAtMs = Array.from({ length: facts.choices }, () => null);
    this.#ended = Array.from({ length: facts.choices }, () => false);
    series.requestPromptTokens.observe(facts.promptTokens);
    series.requestMaxTokens.observe(facts.maxTokens);
    series.requestChoices.observe(facts.choices);
  }

  see(event: SequenceEvent): void {
    switch (event.type) {
      case 'started': this.#cachedTokens = event.cachedTokens; break;
      case 'tokens': this.#tokens(event.choice, event.tokens.length); break;
      case 'finished': this.#finished(event); break;
      case 'failed': this.#failed(event.choice, event.code); break;
      case 'progress':
      case 'prompt':
      case 'preempted': break;
    }
  }

  /** The request is over for its reader. Choices that have not ended were aborted by the client. Idempotent. */
  end(): void {
    if (this.#closed) return;
    this.#closed = true;
    const aborted = this.#ended.filter((ended) => !ended).length;
    if (aborted > 0) {
      this.#series.cancelled.inc();
      this.#series.success.inc({ finished_reason: 'abort' }, aborted);
    }
    this.#series.requestMaxGenerationTokens.observe(this.#longestChoice);
  }

  #tokens(choice: number, count: number): void {
    const now = performance.now();
    if (!this.#promptCounted) this.#series.firstToken.observe((now - this.#facts.arrivedMs) / 1000);
    this.#countPrompt();
    const before = this.#tokenAtMs[choice] ?? null;
    if (before !== null) this.#series.tokenGap.observe((now - before) / 1000);
    this.#tokenAtMs[choice] = now;
    this.#series.generationTokens.inc(count);
  }

  #countPrompt(): void {
    if (this.#promptCounted) return;
    this.#promptCounted = true;
    const { promptTokens } = this.#facts;
    this.#series.promptTokens.inc(promptTokens);
    this.#series.cachedTokens.inc(this.#cachedTokens);
    this.#series.tokensBySource.inc({ source: 'local_cache_hit' }, this.#cachedTokens);
    this.#series.tokensBySource.inc({ source: 'local_compute' }, promptTokens - this.#cachedTokens);
  }

  /** A stop token was generated too, though it is not sent. Without any token (max_tokens 0) the prompt still counts. */
  #finished({ choice, reason, stopToken, metrics }: Finished): void {
    if (stopToken !== null) this.#tokens(choice, 1);
    this.#countPrompt();
    const { queueMs, prefillMs, decodeMs } = metrics;
    const generatedTokens = metrics.generatedTokens + (stopToken === null ? 0 : 1);
    const series = this.#series;
    this.#ended[choice] = true;
    this.#longestChoice = Math.max(this.#longestChoice, generatedTokens);
    series.success.inc({ finished_reason: reason });
    series.endToEnd.observe((performance.now() - this.#facts.arrivedMs) / 1000);
    series.queueTime.observe(queueMs / 1000);
    series.prefillTime.observe(prefillMs / 1000);
    series.decodeTime.observe(decodeMs / 1000);
    series.inferenceTime.observe((prefillMs + decodeMs) / 1000);
    series.requestGenerationTokens.observe(generatedTokens);
    series.requestComputedTokens.observe(metrics.computedTokens);
    if (generatedTokens > 1) series.timePerToken.observe(decodeMs / 1000 / (generatedTokens - 1));
  }

  #failed(choice: number, code: string): void {
    this.#ended[choice] = true;
    this.#series.success.inc({ finished_reason: 'error' });
    this.#series.failed.inc({ code });
  }
}
