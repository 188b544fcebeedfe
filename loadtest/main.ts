/**
 * The load generator: `npm run loadtest -- --help`. A table for people, then one line of JSON with the
 * key names of `vllm bench serve`. Exit code 1 when a request failed.
 */
import { writeFileSync } from 'node:fs';
import { Client } from './client.ts';
import { startLagMeter, type Lag } from './lag.ts';
import { runLoad, type LoadResult } from './load.ts';
import { parseLoadOptions, USAGE, type LoadOptions } from './options.ts';
import { outcomeOf, summarise, summariseByClass, toTable, toVllmRecord } from './report.ts';

async function main(options: LoadOptions): Promise<void> {
  const client = new Client(options.baseUrl, options.apiKey);
  const lag = startLagMeter();
  const load = await runLoad(client, options);
  await client.close();
  const record = print(options, load, lag.read());
  if (options.saveResult !== null) writeFileSync(options.saveResult, `${record}\n`);
  if (load.requests.some(({ result }) => outcomeOf(result) === 'failed')) process.exitCode = 1;
}

/** Returns the last line. */
function print(options: LoadOptions, { model, requests, seconds }: LoadResult, lag: Lag): string {
  const all = summarise(requests, options.objectives);
  const classes = summariseByClass(requests, options.objectives);
  const rows = new Map([...classes].map(([tokens, summary]) => [`${tokens} tokens`, summary]));
  console.log(toTable(new Map([...rows, ['all', all]]), seconds));
  console.log(`times in ms; ${seconds.toFixed(1)} s, seed ${options.seed}; this generator's event loop lagged p99 ${lag.p99Ms.toFixed(1)} ms, max ${lag.maxMs.toFixed(1)} ms`);
  for (const error of new Set(requests.flatMap(({ result }) => result.error ?? []))) console.log(`  ${error}`);
  const record = JSON.stringify({
    date: new Date().toISOString(), backend: 'openai-chat', base_url: options.baseUrl, model_id: model, seed: options.seed,
    request_rate: options.requestRate === Infinity ? 'inf' : options.requestRate, max_concurrency: options.maxConcurrency,
    ...toVllmRecord(all, seconds),
    classes: Object.fromEntries([...classes].map(([tokens, summary]) => [tokens, toVllmRecord(summary, seconds)])),
    client_lag_p99_ms: lag.p99Ms, client_lag_max_ms: lag.maxMs,
  });
  console.log(record);
  return record;
}

try {
  const options = parseLoadOptions(process.argv.slice(2));
  if (options === null) console.log(USAGE);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
