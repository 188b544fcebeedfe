import { describe, expect, test } from 'vitest';
import type { GenerationRequest, SequenceEvent, TokenLogprob } from '../../scheduler/messages.ts';
import { alone, bench, dense, greedy, metricsOf, prompt, recording, request, timed, typesOf as types, type Bench } from './build.ts';
import { ListEngine } from './list-engine.ts';

/** Of the prompt, as far as told. */
function scoresOf({ events }: Bench, id: number): TokenLogprob[] {
  return events.flatMap((event) => (event.type === 'prompt' && event.id === id ? event.logprobs : []));
}

describe('a request', () => {
  test('ends at its number of tokens, with events in order', async () => {
    const busy = bench();
    busy.submit(request(1, { maxTokens: 3 }));
    await busy.finish();
    expect(types(busy, 1)).toEqual(['started', 'tokens', 'tokens', 'tokens', 'finished']);
    expect(busy.endOf(1)).toMatchObject({ reason: 'length', stopToken: null });
  });

  test('ends at a stop token, which is reported but not sent', async () => {
    const [first, second] = await alone(request(1));
    const busy = bench();
    busy.submit(request(1, { stopTokenIds: [second!] }));
    await busy.finish();
    expect(busy.tokensOf(1)).toEqual([first]);
    expect(busy.endOf(1)).toMatchObject({ reason: 'stop', stopToken: second });
  });

  test('ends at the longest text that the model may have, unless it streams', async () => {
    const busy = bench({ maxModelLen: 15 });
    busy.submit(request(1, { maxTokens: 100 }), request(2, { maxTokens: 100, attention: { ...dense, attention: 'streaming' } }));
    await busy.finish();
    expect(busy.tokensOf(1)).toHaveLength(5);
    expect(busy.tokensOf(2)).toHaveLength(100);
  });

  test('for no tokens at all computes its prompt and ends', async () => {
    const busy = bench();
    busy.submit(request(1, { maxTokens: 0, promptLogprobsFrom: 1, logprobs: 2 }), request(2, { maxTokens: 0, promptLogprobsFrom: 1, promptIds: Int32Array.of(4) }));
    await busy.finish();
    expect(types(busy, 1)).toEqual(['started', 'prompt', 'finished']);
    // Its only token has no log-probability.
    expect(types(busy, 2)).toEqual(['started', 'finished']);
  });

  test('tells the log-probabilities of its prompt, cached or not', async () => {
    const busy = bench();
    const promptIds = prompt(5, 300);
    for (const id of [1, 2]) {
      busy.submit(request(id, { promptIds, promptLogprobsFrom: 1, logprobs: 1 }));
      await busy.finish();
    }
    const scores = [1, 2].map((id) => scoresOf(busy, id));
    expect(scores[0]!.map(({ token }) => token)).toEqual([...promptIds.subarray(1)]);
    expect(scores[1]).toEqual(scores[0]);
    // The fake engine is sure of its next token, and the prompt is hardly ever what it would have said.
    expect(scores[0]!.every(({ top }) => top[0]!.logprob > -1e-6)).toBe(true);
    expect(scores[0]!.filter(({ logprob }) => logprob < -50).length).toBeGreaterThan(290);
  });

  test('tells those of a long prompt as it computes them, before its first token', async () => {
    const busy = bench({ stepTokens: 256 });
    const promptIds = prompt(5, 1000);
    busy.submit(request(1, { promptIds, promptLogprobsFrom: 1, logprobs: 0, maxTokens: 2 }));
    await busy.finish();
    const told = types(busy, 1);
    expect(told.filter((type) => type === 'prompt').length).toBeGreaterThan(3);
    expect(told.lastIndexOf('prompt')).toBeLessThan(told.indexOf('tokens'));
    expect(scoresOf(busy, 1).map(({ token }) => token)).toEqual([...promptIds.subarray(1)]);
  });

  test('tells them from a token on, and takes what stands before it from the cache', async () => {
    const busy = bench();
    const promptIds = prompt(5, 300);
    const scoresFrom = async (id: number, from: number, maxTokens: number): Promise<readonly TokenLogprob[]> => {
      busy.submit(request(id, { promptIds, promptLogprobsFrom: from, logprobs: 1, maxTokens }));
      await busy.finish();
      return scoresOf(busy, id);
    };
    const all = await scoresFrom(1, 1, 0);
    for (const [id, from, cached] of [[2, 200, 192], [3, 257, 256], [4, 256, 192], [5, 299, 256], [6, 300, 256], [7, 5000, 256]] as const) {
      expect(await scoresFrom(id, from, 3), `from ${from}`).toEqual(all.slice(from - 1));
      expect(busy.events.find((event) => event.type === 'started' && event.id === id)).toMatchObject({ cachedTokens: cached });
      expect(busy.tokensOf(id)).toEqual(busy.tokensOf(2));
    }
  });

  test('reports log-probabilities with its tokens when asked to', async () => {
    const busy = bench();
    busy.submit(request(1, { logprobs: 2, maxTokens: 1 }));
    await busy.finish();
    const event = busy.events.find(({ type }) => type === 'tokens') as SequenceEvent & { type: 'tokens' };
    expect(event.logprobs![0]).toMatchObject({ token: event.tokens[0]!, top: [{ token: event.tokens[0]! }, {}] });
  });

  test('reports the progress of its prefill when asked to', async () => {
    const busy = bench({ stepTokens: 128 });
    busy.submit(request(1, { promptIds: prompt(1, 300), progress: true, maxTokens: 1 }));
    await busy.finish();
    const processed = busy.events.flatMap((event) => (event.type === 'progress' ? [event.processed] : []));
    expect(processed).toEqual([128, 256, 300]);
  });

  test('that can never fit fails at once, with what it would need', async () => {
    const busy = bench({ pages: 4 });
    busy.submit(request(1, { promptIds: prompt(1, 256) }), request(2, { promptIds: prompt(2, 200) }));
    await busy.finish();
    expect(busy.endOf(1)).toMatchObject({ type: 'failed', code: 'kv_capacity' });
    expect(busy.endOf(2)).toMatchObject({ type: 'finished' });
  });

  test('that outgrows the pool while alone fails instead of waiting for ever', async () => {
    const busy = bench({ pages: 4 });
    busy.submit(request(1, { maxTokens: 1000 }));
    await busy.finish();
    expect(busy.endOf(1)).toMatchObject({ type: 'failed', code: 'kv_capacity' });
    expect(busy.tokensOf(1)).toHaveLength(4 * 64 + 1 - 10);
  });

  test('that streams is endless within constant memory', async () => {
    const busy = bench({ pages: 16 });
    busy.submit(request(1, { promptIds: prompt(1, 3000), maxTokens: 3000, attention: { ...dense, attention: 'streaming' } }));
    await busy.finish();
    expect(busy.tokensOf(1)).toHaveLength(3000);
    expect(metricsOf(busy, 1)).toMatchObject({ exactness: 'approximate', preemptions: 0 });
  });

  test('past its deadline fails, waiting or running', async () => {
    const busy = bench({ maxSequences: 1 });
    busy.submit(request(1, { deadlineMs: 50, maxTokens: 1000 }), request(2, { deadlineMs: 50 }), request(3));
    await busy.loop.step();
    busy.clock.ms = 51;
    await busy.loop.step();
    busy.loop.checkIntegrity();
    for (const id of [1, 2]) expect(busy.endOf(id)).toMatchObject({ type: 'failed', code: 'deadline_exceeded' });
    await busy.finish();
    expect(busy.endOf(3).type).toBe('finished');
  });

  test('is told the truth in its metrics', async () => {
    const busy = bench({ stepTokens: 128 });
    const promptIds = prompt(1, 200);
    busy.submit(request(1, { promptIds, maxTokens: 5 }));
    await busy.finish();
    busy.submit(request(2, { promptIds, maxTokens: 5 }));
    await busy.finish();
    expect(metricsOf(busy, 1)).toMatchObject({ promptTokens: 200, cachedTokens: 0, computedTokens: 200, recomputedTokens: 0, generatedTokens: 5, exactness: 'exact', exactnessReason: null });
    expect(metricsOf(busy, 2)).toMatchObject({ cachedTokens: 192, computedTokens: 8 });
    // Steps at positions 200..203 read themselves and all before; 4 heads read 4 pages each.
    expect(metricsOf(busy, 1).attendedTokensPerStep).toBe(202.5);
    expect(metricsOf(busy, 1).pagesReadPerStep).toBe(16);
    expect(busy.tokensOf(2)).toEqual(busy.tokensOf(1));
  });
});

describe('choices of one request', () => {
  test('share the prompt, whose tail alone is computed again', async () => {
    const { engine, steps } = recording();
    const busy = bench({ engine });
    busy.submit(request(1, { promptIds: prompt(1, 1000), choices: 3, maxTokens: 4 }));
    await busy.finish();
    expect(steps.flat().reduce((sum, { start, tokens }) => sum + (start < 1000 ? tokens.length : 0), 0)).toBe(1000 + 2 * (1000 - 960));
    for (const choice of [1, 2]) expect(busy.tokensOf(1, choice)).toEqual(busy.tokensOf(1, 0));
  });

  test('share the prompt without a prefix cache, too, but with nobody else', async () => {
    const busy = bench({ prefixCache: false });
    const promptIds = prompt(1, 1000);
    busy.submit(request(1, { promptIds, choices: 2 }), request(2, { promptIds }));
    await busy.finish();
    expect(metricsOf(busy, 1, 1).cachedTokens).toBe(960);
    expect(metricsOf(busy, 2).cachedTokens).toBe(0);
  });

  test('draw with seeds of their own', async () => {
    const busy = bench();
    // Biases of 100 on tokens that the fake engine does not want make five equals.
    const logitBias = [1, 2, 3, 4, 5].map((token) => [token, 100] as const);
    const sampling = { ...greedy, temperature: 1, logitBias, seed: 3 };
    busy.submit(request(1, { choices: 2, maxTokens: 20, sampling }), request(2, { maxTokens: 20, promptIds: request(1).promptIds, sampling: { ...sampling, seed: 4 } }));
    await busy.finish();
    expect(busy.tokensOf(1, 1)).not.toEqual(busy.tokensOf(1, 0));
    expect(busy.tokensOf(2)).toEqual(busy.tokensOf(1, 1));
  });

  test('go on when the first is stopped before the prompt is computed', async () => {
    const busy = bench({ stepTokens: 64 });
    busy.submit(request(1, { promptIds: prompt(1, 500), choices: 2 }));
    await busy.loop.step();
    busy.loop.receive({ type: 'abort', id: 1, choice: 0, reason: 'client' });
    await busy.finish();
    expect(busy.endOf(1, 1).type).toBe('finished');
    expect(metricsOf(busy, 1, 1).cachedTokens).toBeGreaterThan(0);
  });
});

describe('prefixes', () => {
  test('of a cancelled prefill are kept for the retry', async () => {
    const busy = bench({ stepTokens: 128 });
    const promptIds = prompt(1, 1000);
    busy.submit(request(1, { promptIds }));
    for (let step = 0; step < 4; step++) await busy.loop.step();
    busy.loop.receive({ type: 'abort', id: 1, choice: null, reason: 'client' });
    busy.submit(request(2, { promptIds }));
    await busy.finish();
    expect(metricsOf(busy, 2).cachedTokens).toBe(4 * 128);
    expect(busy.tokensOf(2)).toEqual(await alone(request(2, { promptIds })));
  });

  test('of an answer are found by the next turn', async () => {
    const busy = bench();
    busy.submit(request(1, { promptIds: prompt(1, 100), maxTokens: 100 }));
    await busy.finish();
    busy.submit(request(2, { promptIds: Int32Array.from([...prompt(1, 100), ...busy.tokensOf(1), 1, 2, 3]) }));
    await busy.finish();
    expect(metricsOf(busy, 2).cachedTokens).toBe(192);
  });

  test('are not shared under another salt or another prefill', async () => {
    const busy = bench();
    const promptIds = prompt(1, 1000);
    const lserve = { ...dense, attention: 'lserve' as const };
    for (const [id, changes] of [{}, { cacheSalt: 'x' }, { attention: lserve }, { cacheSalt: 'x' }].entries()) {
      busy.submit(request(id, { promptIds, ...changes }));
      await busy.finish();
    }
    expect([0, 1, 2, 3].map((id) => metricsOf(busy, id).cachedTokens)).toEqual([0, 0, 0, 960]);
  });
});

describe('prefixes under page selection', () => {
  const lserve = { ...dense, attention: 'lserve' as const };

  /** Runs requests one after the other on one engine, each compared with a run of its own. */
  async function inTurn(busy: Bench, each: ReturnType<typeof request>): Promise<void> {
    busy.submit(each);
    await busy.finish();
    const own = bench({ engine: new ListEngine(256) });
    own.submit(each);
    await own.finish();
    expect(busy.tokensOf(each.id)).toEqual(own.tokensOf(each.id));
  }

  test('are not shared by prompts that part within a span, whose queries select together', async () => {
    const busy = bench({ engine: new ListEngine(256) });
    const promptIds = prompt(1, 1200).map((token) => token % 300);
    for (const [id, parting] of [1100, 960, 970, 1023, 1024, 960].entries()) {
      await inTurn(busy, request(id, { attention: lserve, promptIds: promptIds.map((token, i) => (i < parting ? token : (token + parting) % 300)) }));
    }
    expect([1, 2, 3, 4, 5].map((id) => metricsOf(busy, id).cachedTokens)).toEqual([896, 896, 896, 1024, 1152]);
  });

  test('do not contain what decode computed with a selection of its own', async () => {
    const busy = bench({ engine: new ListEngine(256) });
    const promptIds = prompt(1, 900).map((token) => token % 300);
    await inTurn(busy, request(1, { attention: lserve, promptIds, maxTokens: 300 }));
    await inTurn(busy, request(2, { attention: lserve, promptIds: Int32Array.from([...promptIds, ...busy.tokensOf(1), 1, 2]) }));
    expect(metricsOf(busy, 2).cachedTokens).toBe(896);
  });
});

describe('a step', () => {
  test('gives every stream its token however long the prompt that arrives', async () => {
    const { engine, steps } = recording();
    const busy = bench({ engine, stepTokens: 256 });
    busy.submit(request(1, { maxTokens: 60 }), request(2, { maxTokens: 60 }));
    await busy.loop.step();
    busy.submit(request(3, { promptIds: prompt(3, 5000) }));
    await busy.finish();
    const mixed = steps.filter((step) => step.some(({ promptTokens }) => promptTokens === 5000) && step.length > 1);
    expect(mixed.length).toBeGreaterThan(15);
    const streams = steps.slice(1, 50).map((step) => step.filter(({ promptTokens }) => promptTokens === 10).length);
    expect(new Set(streams)).toEqual(new Set([2]));
    for (const step of steps) expect(step.reduce((sum, { tokens }) => sum + tokens.length, 0)).toBeLessThanOrEqual(256);
  });

  test('prefills only as much beside streams as the target for their gap allows', async () => {
    const clock = { ms: 0 };
    const { engine, steps } = recording(1024);
    // 1 ms a step and 0.1 ms a token: 200 tokens fit in 21 ms, three pages of them.
    const busy = bench({ engine: timed(engine, clock, 0.1), clock, stepTokens: 2048, targetGapMs: 21 });
    busy.submit(request(1, { maxTokens: 200 }));
    for (let step = 0; step < 20; step++) await busy.loop.step();
    busy.submit(request(2, { promptIds: prompt(2, 6000), maxTokens: 1 }));
    await busy.finish();
    const sizes = steps.filter((step) => step.length > 1).map((step) => step.reduce((sum, { tokens }) => sum + tokens.length, 0) - 1);
    expect(sizes.length).toBeGreaterThan(20);
    for (const size of sizes.slice(3)) expect(size).toBeLessThanOrEqual(192);
    expect(sizes.slice(3, -3).every((size) => size >= 128)).toBe(true);
  });

  test('scores less of a prompt at once than it reads where streams wait', async () => {
    const clock = { ms: 0 };
    const { engine, steps } = recording(256, { vocab: 20_000 });
    const busy = bench({ engine: timed(engine, clock, 0.001), clock, stepTokens: 2048 });
    busy.submit(request(1, { promptIds: prompt(1, 1000), maxTokens: 1 }));
    await busy.finish();
    const firstOf = async (next: GenerationRequest): Promise<number> => {
      busy.submit(request(2, { maxTokens: 20 }));
      for (let step = 0; step < 3; step++) await busy.loop.step();
      busy.submit(next);
      await busy.loop.step();
      const tokens = steps.at(-1)!.reduce((sum, chunk) => sum + (chunk.phase === 'prefill' ? chunk.tokens.length : 0), 0);
      await busy.finish();
      return tokens;
    };
    expect(await firstOf(request(3, { promptIds: prompt(3, 3000), maxTokens: 1 }))).toBeGreaterThan(1900);
    // 100 ms between tokens, and a row of 20,000 logits is guessed to take 0.2.
    const scored = await firstOf(request(4, { promptIds: prompt(4, 3000), maxTokens: 1, promptLogprobsFrom: 1, logprobs: 0 }));
    expect(scored).toBeGreaterThan(300);
    expect(scored).toBeLessThanOrEqual(500);
  });

  test('gives a prompt the whole step when no stream waits', async () => {
    const { engine, steps } = recording();
    const busy = bench({ engine, stepTokens: 1024, targetGapMs: 1 });
    busy.submit(request(1, { promptIds: prompt(1, 2048), maxTokens: 1 }));
    await busy.finish();
    expect(steps).toHaveLength(2);
  });

  test('lets a short prompt pass a long one, which still advances', async () => {
    const { engine, steps } = recording();
    const busy = bench({ engine, stepTokens: 128 });
    busy.submit(request(1, { promptIds: prompt(1, 5000), maxTokens: 1 }));
    await busy.loop.step();
    busy.submit(request(2, { promptIds: prompt(2, 400), maxTokens: 1 }));
    await busy.finish();
    const last = steps.findLastIndex((step) => step.some(({ promptTokens }) => promptTokens === 400));
    expect(last).toBeLessThan(10);
    expect(steps.slice(0, last).filter((step) => step.some(({ promptTokens }) => promptTokens === 5000)).length).toBeGreaterThan(3);
  });

  test('selects afresh where decode begins, though prefill has picked pages', async () => {
    const { engine, steps } = recording();
    const busy = bench({ engine });
    busy.submit(request(1, { promptIds: prompt(1, 1001), maxTokens: 8, attention: { ...dense, attention: 'lserve' } }));
    await busy.finish();
    const decodes = steps.flat().filter(({ start }) => start > 1000);
    expect(decodes.map(({ attention }) => attention.selection)).toEqual(['fresh', 'reuse', 'reuse', 'fresh', 'reuse', 'reuse', 'reuse']);
  });
});
