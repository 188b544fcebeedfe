/**
 * Series that are read from the engine client at each scrape instead of being kept: after the engine died they are
 * right at once. Called by metrics.ts.
 */
import { Gauge, type Registry } from 'prom-client';
import { PAGE_TOKENS } from '../scheduler/messages.ts';
import type { EngineClient } from './generation.ts';

export function registerEngineGauges(registry: Registry, engine: EngineClient): void {
  const gauges: readonly (readonly [name: string, help: string, read: () => number])[] = [
    ['vllm:num_requests_running', 'Sequences in prefill or decode.', () => engine.gauges.runningSequences],
    ['vllm:num_requests_waiting', 'Sequences that wait.', () => engine.gauges.waitingSequences],
    ['vllm:kv_cache_usage_perc', 'Share (0 to 1) of KV memory held by live sequences.', () => engine.gauges.pagesHeld / Math.max(1, engine.gauges.pagesTotal)],
    ['longspan:prefill_backlog_tokens', 'Prompt tokens of running and waiting sequences still to be computed.', () => engine.gauges.prefillBacklogTokens],
    ['longspan:prefill_tokens_per_second', 'Prefill speed, moving average.', () => engine.gauges.prefillTokensPerSecond],
    ['longspan:decode_step_seconds', 'Duration of a decode step, moving average.', () => engine.gauges.decodeStepMs / 1000],
    ['longspan:queued_requests', 'Requests submitted and not yet started.', () => engine.queued.requests],
    ['longspan:queued_tokens', 'Prompt tokens of these.', () => engine.queued.tokens],
    ['longspan:engine_ready', '1 while the engine takes requests.', () => Number(engine.state === 'ready')],
  ];
  for (const [name, help, read] of gauges) {
    new Gauge({ name, help, registers: [registry], collect() { this.set(read()); } });
  }
  registerPages(registry, engine);
  registerCacheInfo(registry, engine);
}

function registerPages(registry: Registry, engine: EngineClient): void {
  new Gauge({
    name: 'longspan:pages',
    help: 'KV memory in pages of 64 tokens of all KV heads: held by live sequences, kept by the prefix cache only, free. Pages of which some heads have let go count in part.',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      const { pagesHeld, pagesCached, pagesFree } = engine.gauges;
      this.set({ state: 'held' }, pagesHeld);
      this.set({ state: 'cached' }, pagesCached);
      this.set({ state: 'free' }, pagesFree);
    },
  });
}

/** The gateway's endpoint picker reads block_size and num_gpu_blocks from here. */
function registerCacheInfo(registry: Registry, engine: EngineClient): void {
  new Gauge({
    name: 'vllm:cache_config_info',
    help: 'Shape of the KV memory, in labels.',
    labelNames: ['block_size', 'num_gpu_blocks', 'kv_cache_size_tokens', 'cache_dtype'],
    registers: [registry],
    collect() {
      if (engine.spec === null) return;
      const { kvTokens, gauges, spec } = engine;
      this.reset();
      this.set({ block_size: PAGE_TOKENS, num_gpu_blocks: gauges.pagesTotal, kv_cache_size_tokens: kvTokens, cache_dtype: spec.kvPrecision ?? spec.precision }, 1);
    },
  });
}
