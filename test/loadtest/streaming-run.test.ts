import { afterEach, describe, expect, it } from 'vitest';
import { Client } from '../../loadtest/client.ts';
import { usageOf } from '../../loadtest/process-usage.ts';
import { startServer } from '../../loadtest/server-process.ts';
import { runStreaming, stretchesOf, type Sample } from '../../loadtest/streaming-run.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const sample = (prefilled: number, generated: number, seconds: number, cpuSeconds: number | null): Sample =>
  ({ prefilled, generated, seconds, cpuSeconds, residentBytes: null, pagesHeld: null });

describe('runStreaming', () => {
  it('samples prefill and decode of a real server, whose memory and processor time it sees', async () => {
    const server = await startServer(['--engine', 'fake', '--kv-tokens', '4096']);
    const client = new Client(server.baseUrl);
    closing.push(() => server.stop(), () => client.close());
    const seen: Sample[] = [];
    const { samples, result } = await runStreaming(client, {
      model: 'longspan-16m', bookIds: [5, 6, 7, 8], promptTokens: 10_000, answerTokens: 2_000, every: 1_000,
      longContext: { attention: 'streaming' }, seed: 1, pid: server.pid,
    }, (one) => { seen.push(one); });
    expect(result.usage).toMatchObject({ prompt_tokens: 10_000, completion_tokens: 2_000 });
    expect(seen).toHaveLength(samples.length);
    expect(samples.filter(({ generated }) => generated === 0).length).toBeGreaterThanOrEqual(9);
    expect(samples.at(-1)!.generated).toBeGreaterThanOrEqual(1_000);
    for (const { prefilled, pagesHeld, residentBytes, cpuSeconds } of samples) {
      expect(prefilled).toBeLessThanOrEqual(10_000);
      expect(pagesHeld).toBeLessThan(64);
      if (process.platform !== 'linux') continue;
      expect(residentBytes).toBeGreaterThan(50e6);
      expect(cpuSeconds).toBeGreaterThan(0);
    }
  });

  it('rejects with the sentence of a refusal', async () => {
    const server = await startServer(['--engine', 'fake']);
    const client = new Client(server.baseUrl);
    closing.push(() => server.stop(), () => client.close());
    const plan = { model: 'longspan-16m', bookIds: [5], promptTokens: 10, answerTokens: 10, every: 5, longContext: { attention: 'steam' }, seed: 1, pid: null };
    await expect(runStreaming(client, plan, () => undefined)).rejects.toThrow(/^400: .*attention/);
  });
});

describe('stretchesOf', () => {
  it('divides the time between samples of one phase by their tokens, and leaves the border out', () => {
    expect(stretchesOf([sample(100, 0, 1, 2), sample(300, 0, 2, 2.4), sample(400, 50, 9, 3), sample(400, 150, 10, null)])).toEqual([
      { phase: 'prefill', to: 300, msPerToken: 5, cpuMsPerToken: expect.closeTo(2, 9) as number },
      { phase: 'decode', to: 550, msPerToken: 10, cpuMsPerToken: null },
    ]);
  });
});

describe('usageOf', () => {
  it.runIf(process.platform === 'linux')('sees this process and its children, and nothing of a process that is not', () => {
    expect(usageOf(process.pid)!.residentBytes).toBeGreaterThan(0.5 * process.memoryUsage().rss);
    expect(usageOf(process.pid)!.cpuSeconds).toBeGreaterThan(0);
    expect(usageOf(2 ** 30)).toBeNull();
  });
});
