/**
 * Every series of /metrics that is counted as things happen: vLLM's names with its buckets (ours add finer edges,
 * which break no query), and our own under `longspan:`. Declarations only; metrics.ts and request-record.ts fill
 * them, engine-gauges.ts adds what is read from the engine at a scrape.
 */
import { Counter, Gauge, Histogram, Registry, Summary } from 'prom-client';

const fine = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2];
const buckets = {
  firstToken: [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560],
  gap: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
  phase: [...fine, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
  /** The 1-2-5 series, past the longest context that we expect. */
  tokens: [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((decade) => [decade, 2 * decade, 5 * decade]),
  choices: [1, 2, 5, 10, 20],
  iteration: [1, ...Array.from({ length: 12 }, (_, power) => 8 * 2 ** power)],
  internal: [0.0001, 0.00025, 0.0005, ...fine, 0.5, 1, 2.5, 5, 10],
  http: [0.1, 0.5, 1],
  httpFine: [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60],
};

export type Series = ReturnType<typeof createSeries>;

export function createSeries(modelName: string) {
  const registry = new Registry();
  registry.setDefaultLabels({ model_name: modelName, engine: '0' });
  return { registry, ...tokenSeries(registry), ...requestSeries(registry), ...ownSeries(registry), http: httpSeries() };
}

function makers(registry: Registry) {
  const registers = [registry];
  return {
    counter: <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) => new Counter<Label>({ name, help, labelNames, registers }),
    gauge: <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) => new Gauge<Label>({ name, help, labelNames, registers }),
    histogram: (name: string, help: string, edges: number[]) => new Histogram({ name, help, buckets: edges, registers }),
  };
}

/** vLLM: tokens and steps. */
function tokenSeries(registry: Registry) {
  const { counter, histogram } = makers(registry);
  return {
    promptTokens: counter('vllm:prompt_tokens_total', 'Prompt tokens processed, cached ones included.'),
    generationTokens: counter('vllm:generation_tokens_total', 'Tokens generated.'),
    cachedTokens: counter('vllm:prompt_tokens_cached_total', 'Prompt tokens whose KV came from the prefix cache.'),
    tokensBySource: counter('vllm:prompt_tokens_by_source_total', 'Prompt tokens by where their KV came from.', 'source'),
    prefixQueries: counter('vllm:prefix_cache_queries_total', 'Tokens looked up in the prefix cache.'),
    prefixHits: counter('vllm:prefix_cache_hits_total', 'Tokens found in the prefix cache.'),
    preemptions: counter('vllm:num_preemptions_total', 'Sequences preempted.'),
    drafts: counter('vllm:spec_decode_num_drafts_total', 'Passes of a sequence that verified drafted tokens.'),
    draftTokens: counter('vllm:spec_decode_num_draft_tokens_total', 'Tokens drafted.'),
    acceptedTokens: counter('vllm:spec_decode_num_accepted_tokens_total', 'Drafted tokens accepted.'),
    iterationTokens: histogram('vllm:iteration_tokens_total', 'Tokens per step of the engine.', buckets.iteration),
  };
}

/** vLLM: one observation per request or per choice. */
function requestSeries(registry: Registry) {
  const { counter, histogram } = makers(registry);
  return {
    success: counter('vllm:request_success_total', 'Choices that ended, by how.', 'finished_reason'),
    firstToken: histogram('vllm:time_to_first_token_seconds', 'From the arrival of a request to its first token.', buckets.firstToken),
    tokenGap: histogram('vllm:inter_token_latency_seconds', 'Between two tokens of a choice.', buckets.gap),
    timePerToken: histogram('vllm:request_time_per_output_token_seconds', 'Mean time per token after the first, per choice.', buckets.gap),
    endToEnd: histogram('vllm:e2e_request_latency_seconds', 'From the arrival of a request to the end of a choice.', buckets.phase),
    queueTime: histogram('vllm:request_queue_time_seconds', 'Waiting for the first step.', buckets.phase),
    inferenceTime: histogram('vllm:request_inference_time_seconds', 'Prefill and decode.', buckets.phase),
    prefillTime: histogram('vllm:request_prefill_time_seconds', 'Prefill.', buckets.phase),
    decodeTime: histogram('vllm:request_decode_time_seconds', 'Decode.', buckets.phase),
    requestPromptTokens: histogram('vllm:request_prompt_tokens', 'Prompt tokens per request.', buckets.tokens),
    requestGenerationTokens: histogram('vllm:request_generation_tokens', 'Tokens generated per choice.', buckets.tokens),
    requestMaxGenerationTokens: histogram('vllm:request_max_num_generation_tokens', 'Tokens of the longest choice of a request.', buckets.tokens),
    requestMaxTokens: histogram('vllm:request_params_max_tokens', 'max_tokens per request.', buckets.tokens),
    requestComputedTokens: histogram('vllm:request_prefill_kv_computed_tokens', 'Prompt tokens computed per choice, cached ones left out.', buckets.tokens),
    requestChoices: histogram('vllm:request_params_n', 'n per request.', buckets.choices),
    websocketsActive: makers(registry).gauge('vllm:websocket_connections_active', 'Open WebSocket connections.'),
    websockets: counter('vllm:websocket_connections_total', 'WebSocket connections opened.'),
  };
}

/** What vLLM has no name for. */
function ownSeries(registry: Registry) {
  const { counter, gauge, histogram } = makers(registry);
  return {
    recomputedTokens: counter('longspan:recomputed_tokens_total', 'Tokens computed again after preemptions.'),
    attendedTokens: counter('longspan:attended_tokens_total', 'Tokens that attention read in decode: mean over layers and heads, summed over sequences and steps.'),
    pagesRead: counter('longspan:pages_read_total', 'Pages of KV memory read, summed over layers and KV heads.'),
    pagesScored: counter('longspan:pages_scored_total', 'Candidate pages scored, summed over layers and KV heads.'),
    deviceTime: counter('longspan:device_seconds_total', 'Time of a GPU in the steps of the engine, without that of drafters. Beside the clock it says what share of the time the GPU waited.'),
    stepTime: histogram('longspan:step_seconds', 'One step of the engine.', buckets.internal),
    refused: counter('longspan:requests_refused_total', 'Requests refused before they reached the engine, by reason.', 'reason'),
    failed: counter('longspan:choices_failed_total', 'Accepted choices that failed, by code.', 'code'),
    cancelled: counter('longspan:requests_cancelled_total', 'Requests whose client left before the end.'),
    engineRestarts: counter('longspan:engine_restarts_total', 'Engine processes started after one died.'),
    tokenizerTime: histogram('longspan:tokenizer_seconds', 'Tokenising one text.', buckets.internal),
    tokenizerBytes: counter('longspan:tokenizer_bytes_total', 'Bytes of text tokenised.'),
    engineToSocket: histogram('longspan:engine_to_socket_seconds', 'From the arrival of a token from the engine to the write to its socket.', buckets.internal),
    eventLoopDelay: gauge('longspan:event_loop_delay_seconds', 'Lateness of the event loop of the HTTP process since the last scrape.', 'quantile'),
  };
}

/** The HTTP layer as vLLM's server shows it, without the model's labels. */
function httpSeries() {
  const registry = new Registry();
  const { counter, histogram } = makers(registry);
  const byHandler = ['handler', 'method'] as const;
  const size = (name: string, help: string) => new Summary({ name, help, labelNames: ['handler'], percentiles: [], registers: [registry] });
  return {
    registry,
    requests: counter('http_requests_total', 'Requests by handler, method and status class.', ...byHandler, 'status'),
    duration: new Histogram({ name: 'http_request_duration_seconds', help: 'Duration by handler.', labelNames: byHandler, buckets: buckets.http, registers: [registry] }),
    durationFine: histogram('http_request_duration_highr_seconds', 'Duration of all requests, finely.', buckets.httpFine),
    requestBytes: size('http_request_size_bytes', 'Bytes of request bodies.'),
    responseBytes: size('http_response_size_bytes', 'Bytes of response bodies of known length.'),
  };
}
