/**
 * What the server counts, one method per event, so that callers stay small; and the Prometheus text of /metrics.
 * The series are declared in metric-series.ts and engine-gauges.ts. Has registries of its own, nothing global.
 * Called by app.ts, routes/ and main.ts.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { StepCounters } from '../scheduler/messages.ts';
import { registerEngineGauges } from './engine-gauges.ts';
import type { EngineClient } from './generation.ts';
import { type Series, createSeries } from './metric-series.ts';
import { type RequestFacts, RequestRecord } from './request-record.ts';

export interface HttpExchange {
  /** The route's pattern, such as /v1/models/*; 'none' when no route matched. */
  readonly handler: string;
  readonly method: string;
  readonly status: number;
  readonly seconds: number;
  /** Bytes of the bodies; 0 when unknown. */
  readonly requestBytes: number;
  readonly responseBytes: number;
}

/** How often the event loop's lateness is sampled; the monitor's figures include it. */
const DELAY_SAMPLE_MS = 10;

export class Metrics {
  readonly #series: Series;
  readonly #delay: IntervalHistogram;

  constructor(modelName: string) {
    this.#series = createSeries(modelName);
    this.#delay = monitorEventLoopDelay({ resolution: DELAY_SAMPLE_MS });
    this.#delay.enable();
    for (const reason of ['stop', 'length', 'abort', 'error']) this.#series.success.inc({ finished_reason: reason }, 0);
  }

  /** Shows the engine's gauges at every scrape and adds up its steps. Once per engine client. */
  watch(engine: EngineClient): void {
    registerEngineGauges(this.#series.registry, engine);
    engine.onStep((counters) => { this.#step(counters); });
  }

  /** A request was submitted to the engine; its reader shows the events to the record. */
  requestStarted(facts: RequestFacts): RequestRecord {
    return new RequestRecord(this.#series, facts);
  }

  /** A request was refused before it reached the engine. `reason` is an error code or as short. */
  refused(reason: string): void {
    this.#series.refused.inc({ reason });
  }

  tokenized(seconds: number, bytes: number): void {
    this.#series.tokenizerTime.observe(seconds);
    this.#series.tokenizerBytes.inc(bytes);
  }

  /** Tokens that arrived from the engine `seconds` ago were written to their socket. */
  written(seconds: number): void {
    this.#series.engineToSocket.observe(seconds);
  }

  engineRestarted(): void {
    this.#series.engineRestarts.inc();
  }

  exchange({ handler, method, status, seconds, requestBytes, responseBytes }: HttpExchange): void {
    const { http } = this.#series;
    http.requests.inc({ handler, method, status: `${Math.floor(status / 100)}xx` });
    http.duration.observe({ handler, method }, seconds);
    http.durationFine.observe(seconds);
    http.requestBytes.observe({ handler }, requestBytes);
    http.responseBytes.observe({ handler }, responseBytes);
  }

  readonly contentType = 'text/plain; version=0.0.4; charset=utf-8';

  /** The Prometheus text. */
  async text(): Promise<string> {
    this.#readDelay();
    return (await this.#series.registry.metrics()) + (await this.#series.http.registry.metrics());
  }

  close(): void {
    this.#delay.disable();
  }

  #step(counters: StepCounters): void {
    const series = this.#series;
    series.stepTime.observe(counters.stepMs / 1000);
    series.deviceTime.inc(counters.deviceMs / 1000);
    series.iterationTokens.observe(counters.prefillTokens + counters.decodeTokens);
    series.recomputedTokens.inc(counters.recomputedTokens);
    series.prefixQueries.inc(counters.prefixQueryTokens);
    series.prefixHits.inc(counters.prefixHitTokens);
    series.preemptions.inc(counters.preemptions);
    series.pagesRead.inc(counters.pagesRead);
    series.pagesScored.inc(counters.pagesScored);
    series.attendedTokens.inc(counters.attendedTokens);
    series.drafts.inc(counters.draftPasses);
    series.draftTokens.inc(counters.draftedTokens);
    series.acceptedTokens.inc(counters.acceptedTokens);
  }

  /** Nanoseconds of the monitor, sample period included -> seconds late. */
  #readDelay(): void {
    const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e9 - DELAY_SAMPLE_MS / 1000);
    const gauge = this.#series.eventLoopDelay;
    for (const quantile of [0.5, 0.9, 0.99]) gauge.set({ quantile: String(quantile) }, late(this.#delay.percentile(quantile * 100)));
    gauge.set({ quantile: '1' }, late(this.#delay.max));
    this.#delay.reset();
  }
}
