// /metrics against the sum of the answers that were given, and its text against the format's rules.
import { expect, it, onTestFinished } from 'vitest';
import { realServer, type RealServer } from './real-server.ts';

interface Answer {
  readonly choices: readonly { readonly finish_reason: 'stop' | 'length' }[];
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number; readonly prompt_tokens_details: { readonly cached_tokens: number } };
  readonly metrics: { readonly preemptions: number; readonly recomputed_tokens: number };
}

async function serve(...flags: string[]): Promise<RealServer> {
  const server = await realServer('--engine', 'fake', ...flags);
  onTestFinished(() => server.close());
  return server;
}

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Throws for a line that the format does not know. */
function parseSample(line: string): Sample {
  const match = /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)$/.exec(line);
  if (match === null) throw new Error(`not a sample: ${line}`);
  const [, name, labels = '', value] = match;
  const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text]) => [label!, text!] as const);
  return { name: name!, labels: Object.fromEntries(pairs), value: Number(value!.replace('+Inf', 'Infinity')) };
}

async function scrape({ app }: RealServer): Promise<string[]> {
  return (await app.inject('/metrics')).body.split('\n').filter((line) => line !== '');
}

/** The series' value; summed over the labels that are not asked for. */
function total(lines: readonly string[], name: string, labels: Readonly<Record<string, string>> = {}): number {
  const samples = lines.filter((line) => !line.startsWith('#')).map(parseSample).filter((sample) => sample.name === name);
  return samples.filter((sample) => Object.entries(labels).every(([label, text]) => sample.labels[label] === text)).reduce((sum, { value }) => sum + value, 0);
}

it('adds up to what was answered', async () => {
  const server = await serve('--kv-tokens', '2048');
  const prompt = (from: number, tokens: number): number[] => Array.from({ length: tokens }, (_, i) => 100 + ((from + i) % 5000));
  const bodies = [
    ...Array.from({ length: 12 }, (_, i) => ({ prompt: prompt((i % 3) * 7, 300 + 20 * i), max_tokens: 10 + 30 * i, ignore_eos: true, priority: i % 2 })),
    { prompt: [prompt(0, 200), prompt(9, 70)], max_tokens: 5, n: 2 },
    { prompt: 'the first token ends it', max_tokens: 5, stop_token_ids: [777], logit_bias: { 777: 100 }, temperature: 0 },
    { prompt: 'nothing is generated', max_tokens: 0, echo: true, logprobs: 1 },
    { prompt: 'a stop string', max_tokens: 200, stop: ['e'], ignore_eos: true },
  ];
  const answers = await Promise.all(bodies.map((body) => server.post<Answer>('/v1/completions', body)));
  const sum = (read: (answer: Answer) => number): number => answers.reduce((all, answer) => all + read(answer), 0);
  const ended = (reason: string): number => sum(({ choices }) => choices.filter(({ finish_reason: how }) => how === reason).length);

  const lines = await scrape(server);
  expect(total(lines, 'vllm:prompt_tokens_total')).toBe(sum(({ usage }) => usage.prompt_tokens));
  expect(total(lines, 'vllm:prompt_tokens_by_source_total')).toBe(sum(({ usage }) => usage.prompt_tokens));
  expect(total(lines, 'vllm:prompt_tokens_cached_total')).toBe(sum(({ usage }) => usage.prompt_tokens_details.cached_tokens));
  expect(total(lines, 'vllm:request_success_total', { finished_reason: 'stop' })).toBe(ended('stop'));
  expect(total(lines, 'vllm:request_success_total', { finished_reason: 'length' })).toBe(ended('length'));
  expect(total(lines, 'vllm:num_preemptions_total')).toBe(sum(({ metrics }) => metrics.preemptions));
  expect(total(lines, 'longspan:recomputed_tokens_total')).toBe(sum(({ metrics }) => metrics.recomputed_tokens));
  // After a stop string the engine may have been a few tokens ahead of the text.
  const generated = total(lines, 'vllm:generation_tokens_total') - sum(({ usage }) => usage.completion_tokens);
  expect(generated).toBeGreaterThanOrEqual(0);
  expect(generated).toBeLessThanOrEqual(2);
  expect(sum(({ metrics }) => metrics.preemptions), 'the test has to preempt').toBeGreaterThan(0);
  expect(total(lines, 'vllm:num_requests_running') + total(lines, 'vllm:num_requests_waiting') + total(lines, 'longspan:pages', { state: 'held' })).toBe(0);
});

it('is text that Prometheus reads: families whole and described, histograms cumulative, counters named so', async () => {
  const server = await serve();
  await server.post('/v1/completions', { prompt: 'a', max_tokens: 20 });
  const types = new Map<string, string>();
  const described = new Set<string>();
  const seen = new Set<string>();
  const cumulative = new Map<string, number>();
  let family = '';
  for (const line of await scrape(server)) {
    const header = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line);
    if (header !== null) {
      const [, kind, name, text] = header;
      if (kind === 'HELP') described.add(name!);
      else {
        expect(types.has(name!), `${name!} is declared twice`).toBe(false);
        types.set(family = name!, text!);
      }
      continue;
    }
    const { name, labels: { le, ...labels }, value } = parseSample(line);
    expect(name.replace(/_(bucket|sum|count)$/, ''), line).toBe(family.replace(/_(bucket|sum|count)$/, ''));
    const id = `${name}${JSON.stringify({ ...labels, le })}`;
    expect(seen.has(id), `${line} is there twice`).toBe(false);
    seen.add(id);
    if (le === undefined) continue;
    const series = `${name}${JSON.stringify(labels)}`;
    expect(value, line).toBeGreaterThanOrEqual(cumulative.get(series) ?? 0);
    cumulative.set(series, value);
  }
  expect([...types.keys()].filter((name) => !described.has(name))).toEqual([]);
  expect([...types].filter(([name, type]) => type === 'counter' && !name.endsWith('_total'))).toEqual([]);
});
