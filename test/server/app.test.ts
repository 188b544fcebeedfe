/** The application around its endpoints: ids, keys, CORS, health, readiness, models, metrics, the drain. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ApiKeys } from '../../server/api-keys.ts';
import type { ErrorBody } from '../../server/errors.ts';
import { packageVersion } from '../../server/package.ts';
import { build } from './build-app.ts';
import { finished, readAll, request, started, tokens } from './scripted-engine.ts';

describe('every response', () => {
  it('has an x-request-id: the client\'s if it is sane, else a new one', async () => {
    const { app } = await build();
    const id = async (given?: string) =>
      (await app.inject({ url: '/v1/models', headers: given === undefined ? {} : { 'x-request-id': given } })).headers['x-request-id'];
    expect(await id('trace-7:a.b')).toBe('trace-7:a.b');
    expect(await id('x y\tz')).toMatch(/^req_[0-9a-f]{32}$/);
    expect(await id('x'.repeat(200))).toMatch(/^req_/);
    expect(await id()).not.toBe(await id());
    expect((await app.inject('/none')).headers['x-request-id']).toMatch(/^req_/);
  });
});

describe('API keys', () => {
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

  it('are asked for on every path but those of operators', async () => {
    const { app } = await build(['--api-keys', 'sk-1']);
    for (const url of ['/health', '/ready', '/version', '/metrics', '/openapi.json']) expect((await app.inject(url)).statusCode, url).not.toBe(401);
    for (const url of ['/v1/models', '/v1/models/x', '/none', '/tokenize']) expect((await app.inject(url)).statusCode, url).toBe(401);
    expect((await app.inject({ method: 'POST', url: '/v1/chat/completions', payload: {} })).statusCode).toBe(401);
  });

  it('are told apart: none, wrong, right', async () => {
    const { app } = await build(['--api-keys', 'sk-1,alice:sk-2']);
    const code = async (headers: Record<string, string>) => {
      const response = await app.inject({ url: '/v1/models', headers });
      return response.statusCode === 200 ? 200 : response.json<ErrorBody>().error.code;
    };
    expect(await code({})).toBe('missing_api_key');
    expect(await code({ authorization: 'Basic abc' })).toBe('missing_api_key');
    expect(await code(bearer('sk-3'))).toBe('invalid_api_key');
    expect(await code(bearer('alice:sk-2'))).toBe('invalid_api_key');
    expect(await code(bearer('sk-1'))).toBe(200);
    expect(await code({ authorization: 'bearer sk-2' })).toBe(200);
  });

  it('come from a file too, with names and comments, and name the tenant', () => {
    const folder = mkdtempSync(join(tmpdir(), 'longspan-keys-'));
    onTestFinished(() => { rmSync(folder, { recursive: true }); });
    const path = join(folder, 'keys');
    writeFileSync(path, '# keys of 2026\nalice:sk-a # hers\n\n  sk-b#1  \r\n');
    const keys = ApiKeys.load({ apiKeys: ['sk-c'], apiKeysFile: path });
    expect([keys.count, keys.tenantOf('sk-a'), keys.tenantOf('nothing')]).toEqual([3, 'alice', null]);
    expect(keys.tenantOf('sk-b#1')).toMatch(/^key-[0-9a-f]{8}$/);
    expect(keys.tenantOf('sk-b#1')).not.toBe(keys.tenantOf('sk-c'));
    writeFileSync(path, '# none yet\n');
    expect(() => ApiKeys.load({ apiKeys: [], apiKeysFile: path })).toThrow('holds no API key');
  });
});

describe('CORS', () => {
  const preflight = { method: 'OPTIONS', url: '/v1/chat/completions', headers: { origin: 'http://a', 'access-control-request-method': 'POST' } } as const;

  it('is off by default', async () => {
    const { app } = await build();
    expect((await app.inject({ url: '/v1/models', headers: { origin: 'http://a' } })).headers['access-control-allow-origin']).toBeUndefined();
  });

  it('answers a preflight without a key, for the origins that the flag names', async () => {
    const { app } = await build(['--cors-origin', 'http://a,http://b', '--api-keys', 'sk-1']);
    const allowed = await app.inject(preflight);
    expect([allowed.statusCode, allowed.headers['access-control-allow-origin']]).toEqual([204, 'http://a']);
    const other = await app.inject({ ...preflight, headers: { ...preflight.headers, origin: 'http://c' } });
    expect(other.headers['access-control-allow-origin']).not.toBe('http://c');
  });

  it('lets a page read the error and the headers that are meant for it, with *', async () => {
    const { app } = await build(['--cors-origin', '*', '--api-keys', 'sk-1']);
    const { headers, statusCode } = await app.inject({ url: '/v1/models', headers: { origin: 'http://x' } });
    expect([statusCode, headers['access-control-allow-origin']]).toEqual([401, '*']);
    const exposed = String(headers['access-control-expose-headers']).split(', ');
    expect(exposed).toEqual(expect.arrayContaining(['x-request-id', 'retry-after', 'retry-after-ms', 'x-should-retry', 'x-longspan-ignored-parameters']));
  });
});

describe('health and readiness', () => {
  it('follow the engine from its start through a death to the end', async () => {
    const { app, script } = await build();
    const both = async () => {
      const [health, ready] = [await app.inject('/health'), await app.inject('/ready')];
      return [health.statusCode, ready.statusCode, ready.json<{ reason?: string }>().reason];
    };
    expect(await both()).toEqual([200, 503, 'the engine is starting']);
    script.life().ready();
    expect(await both()).toEqual([200, 200, undefined]);
    script.life().die('crash');
    expect(await both()).toEqual([200, 503, 'the engine is restarting']);
    await expect.poll(() => script.lives.length).toBe(2);
    script.life().ready();
    expect(await both()).toEqual([200, 200, undefined]);
    await script.engine.close();
    expect(await both()).toEqual([503, 503, 'the engine is closed']);
  });

  it('a drain turns /ready off and refuses new work, and only that', async () => {
    const { app, script, services } = await build();
    script.life().ready();
    services.lifecycle.startDrain();
    expect((await app.inject('/ready')).json()).toEqual({ status: 'not_ready', reason: 'the server is shutting down' });
    expect((await app.inject('/health')).statusCode).toBe(200);
    const refused = await app.inject({ method: 'POST', url: '/v1/chat/completions', payload: {} });
    expect([refused.statusCode, refused.json<ErrorBody>().error.code, refused.headers['retry-after']]).toEqual([503, 'shutting_down', '5']);
  });

  it('requests under way are counted until their connection closes', async () => {
    const { app, services } = await build();
    expect(await services.lifecycle.idleWithin(0)).toBe(true);
    services.lifecycle.begin();
    expect(await services.lifecycle.idleWithin(1)).toBe(false);
    const idle = services.lifecycle.idleWithin(10_000);
    services.lifecycle.end();
    expect(await idle).toBe(true);
    await app.inject('/v1/models');
    await expect.poll(() => services.lifecycle.active).toBe(0);
  });
});

describe('models and version', () => {
  it('list the one model, with the length that the engine and the flag allow', async () => {
    const { app, script } = await build(['--served-model-name', 'org/long']);
    const [model] = (await app.inject('/v1/models')).json<{ data: object[] }>().data;
    expect(model).toMatchObject({ id: 'org/long', object: 'model', owned_by: 'longspan', max_model_len: 131072 });
    script.life().ready();
    expect((await app.inject('/v1/models/org/long')).json()).toMatchObject({ id: 'org/long', max_model_len: 4096 });
    expect((await app.inject('/v1/models/org%2Flong')).statusCode).toBe(200);
  });

  it('cap the length by --max-model-len', async () => {
    const { services, script } = await build(['--max-model-len', '1000']);
    script.life().ready();
    expect(services.model.contextLength).toBe(1000);
  });

  it('do not know another name', async () => {
    const { app } = await build();
    const response = await app.inject('/v1/models/gpt-9');
    expect([response.statusCode, response.json<ErrorBody>().error]).toMatchObject([404, { code: 'model_not_found', param: 'model' }]);
  });

  it('carry the bundled model\'s defaults: several end-of-text ids, its sampling', async () => {
    const { services: { model } } = await build();
    expect(model.name).toBe('longspan-16m');
    expect([...model.stopTokenIds].sort()).toEqual([0, 2]);
    expect(model.sampling).toEqual({ temperature: 0.7, topP: 0.95, topK: 0, minP: 0, repetitionPenalty: 1 });
  });

  it('tell the version of the package', async () => {
    const { app } = await build();
    expect((await app.inject('/version')).json()).toEqual({ version: packageVersion() });
  });
});

describe('metrics', () => {
  async function scrape(app: Awaited<ReturnType<typeof build>>['app']): Promise<Map<string, number>> {
    const response = await app.inject('/metrics');
    expect(response.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    const lines = response.body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
  }
  const labels = 'model_name="longspan-16m",engine="0"';

  it('show the engine\'s gauges and add up its steps', async () => {
    const { app, script } = await build();
    script.life().ready();
    script.life().step();
    script.life().step();
    const series = await scrape(app);
    expect(series.get(`vllm:num_requests_running{${labels}}`)).toBe(1);
    expect(series.get(`vllm:num_requests_waiting{${labels}}`)).toBe(2);
    expect(series.get(`vllm:kv_cache_usage_perc{${labels}}`)).toBe(0.25);
    expect(series.get(`longspan:prefill_backlog_tokens{${labels}}`)).toBe(300);
    expect(series.get(`longspan:recomputed_tokens_total{${labels}}`)).toBe(14);
    expect(series.get(`longspan:attended_tokens_total{${labels}}`)).toBe(1280);
    expect(series.get(`vllm:prefix_cache_hits_total{${labels}}`)).toBe(128);
    expect(series.get(`vllm:num_preemptions_total{${labels}}`)).toBe(2);
    expect(series.get(`vllm:iteration_tokens_total_sum{${labels}}`)).toBe(130);
    expect(series.get(`longspan:pages{state="cached",${labels}}`)).toBe(15);
    expect(series.get(`vllm:cache_config_info{block_size="64",num_gpu_blocks="100",kv_cache_size_tokens="6400",cache_dtype="fp32",${labels}}`)).toBe(1);
    script.life().die('crash');
    expect((await scrape(app)).get(`vllm:num_requests_running{${labels}}`)).toBe(0);
  });

  it('follow a request: first token, gaps, ends by reason', async () => {
    const { app, script, services } = await build();
    script.life().ready();
    const generation = script.engine.submit(request({ choices: 2 }));
    const { id } = generation;
    const record = services.metrics.requestStarted({ arrivedMs: performance.now() - 50, promptTokens: 3, choices: 2, maxTokens: 5 });
    script.life().step(started(id), tokens(id, 0, 1), tokens(id, 0, 2, 3), finished(id, 0), { type: 'failed', id, choice: 1, code: 'kv_capacity', message: '' });
    for (const event of await readAll(generation)) record.see(event);
    record.end();
    record.end();
    const series = await scrape(app);
    expect(series.get(`vllm:generation_tokens_total{${labels}}`)).toBe(3);
    expect(series.get(`vllm:prompt_tokens_total{${labels}}`)).toBe(3);
    expect(series.get(`vllm:time_to_first_token_seconds_count{${labels}}`)).toBe(1);
    expect(series.get(`vllm:time_to_first_token_seconds_bucket{le="0.04",${labels}}`)).toBe(0);
    expect(series.get(`vllm:inter_token_latency_seconds_count{${labels}}`)).toBe(1);
    expect(series.get(`vllm:request_success_total{finished_reason="length",${labels}}`)).toBe(1);
    expect(series.get(`vllm:request_success_total{finished_reason="error",${labels}}`)).toBe(1);
    expect(series.get(`vllm:request_success_total{finished_reason="abort",${labels}}`)).toBe(0);
    expect(series.get(`longspan:choices_failed_total{code="kv_capacity",${labels}}`)).toBe(1);
    expect(series.get(`vllm:request_params_n_sum{${labels}}`)).toBe(2);
    expect(series.get(`vllm:request_queue_time_seconds_sum{${labels}}`)).toBe(0.01);
  });

  it('count a client that left', async () => {
    const { app, services } = await build();
    services.metrics.requestStarted({ arrivedMs: 0, promptTokens: 1, choices: 2, maxTokens: 1 }).end();
    const series = await scrape(app);
    expect(series.get(`longspan:requests_cancelled_total{${labels}}`)).toBe(1);
    expect(series.get(`vllm:request_success_total{finished_reason="abort",${labels}}`)).toBe(2);
  });

  it('count what is refused at the door, by reason', async () => {
    const { app, services } = await build(['--api-keys', 'sk-1']);
    await app.inject('/v1/models');
    services.lifecycle.startDrain();
    await app.inject({ url: '/v1/models', headers: { authorization: 'Bearer sk-1' } });
    const series = await scrape(app);
    expect(series.get(`longspan:requests_refused_total{reason="missing_api_key",${labels}}`)).toBe(1);
    expect(series.get(`longspan:requests_refused_total{reason="shutting_down",${labels}}`)).toBe(1);
  });

  it('count HTTP by pattern, method and status class, operators\' paths left out', async () => {
    const { app } = await build();
    await app.inject('/v1/models/a');
    await app.inject('/none');
    await app.inject('/health');
    await expect.poll(async () => (await scrape(app)).get('http_requests_total{handler="/v1/models/*",method="GET",status="4xx"}')).toBe(1);
    const series = await scrape(app);
    expect(series.get('http_requests_total{handler="none",method="GET",status="4xx"}')).toBe(1);
    expect([...series.keys()].filter((key) => /handler="\/(health|metrics)/.test(key))).toEqual([]);
  });

  it('have every edge of vLLM\'s buckets', async () => {
    const { app } = await build();
    const series = await scrape(app);
    const edges: Record<string, number[]> = {
      'vllm:time_to_first_token_seconds': [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560],
      'vllm:inter_token_latency_seconds': [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
      'vllm:request_time_per_output_token_seconds': [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
      'vllm:e2e_request_latency_seconds': [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680],
      'vllm:request_prompt_tokens': [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000],
      'vllm:iteration_tokens_total': [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
      'vllm:request_params_n': [1, 2, 5, 10, 20],
    };
    for (const [name, list] of Object.entries(edges)) {
      for (const edge of list) expect(series.has(`${name}_bucket{le="${edge}",${labels}}`), `${name} ${edge}`).toBe(true);
    }
  });
});
