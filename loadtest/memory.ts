/**
 * How much memory a long text takes under each attention: `npm run bench:memory`. For each row a server of its own: what
 * its processes grow by, at most, while they read one prompt and answer it, and the KV pages they hold. KV memory that
 * was never written takes none, so that growth is what the text needs. A table, then one line of JSON.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from './client.ts';
import { nameOfLength } from './eval/options.ts';
import { settingsOf, titleOf } from './eval/rows.ts';
import { firstModel } from './load.ts';
import { tokenizeBook } from './needle-tests.ts';
import { tokenCount } from './options.ts';
import { usageOf } from './process-usage.ts';
import { parseMetrics, sumOf } from './prometheus-text.ts';
import { readBook } from './prompts.ts';
import { startServer } from './server-process.ts';
import { alignColumns } from './table.ts';

const USAGE = `npm run bench:memory -- [options]
  --rows R,R       dense, streaming, lserve-BUDGET, lserve-BUDGET-SHARE    dense,lserve-2048,lserve-2048-50,streaming
  --lengths L,L    prompt tokens, K = 1024                                 16K   (a dense prompt of 128K takes a CPU a quarter of an hour)
  --precision P, --threads N, --model DIR   of the server`;

const FLAGS = {
  rows: { type: 'string', default: 'dense,lserve-2048,lserve-2048-50,streaming' },
  lengths: { type: 'string', default: '16K' },
  precision: { type: 'string', default: 'int8' },
  threads: { type: 'string' },
  model: { type: 'string' },
  help: { type: 'boolean' },
} as const;

const ANSWER_TOKENS = 32;
const WARM_UP_TOKENS = 4096;
const SAMPLE_MS = 50;

interface Figure {
  readonly row: string;
  readonly tokens: number;
  /** Of both processes, after a short text and the most while the long one was there. */
  readonly restBytes: number;
  readonly peakBytes: number;
  /** The most that were held. */
  readonly pagesHeld: number;
  readonly seconds: number;
}

async function measureRow(row: string, tokens: number, serverFlags: readonly string[]): Promise<Figure> {
  const server = await startServer([...serverFlags, '--no-prefix-cache', '--kv-tokens', String(tokens + 2 * WARM_UP_TOKENS)]);
  const client = new Client(server.baseUrl);
  try {
    const [model, book] = await Promise.all([firstModel(client), tokenizeBook(client, readBook())]);
    const ask = (length: number): Promise<unknown> => client.post('/v1/completions', {
      model, prompt: Array.from({ length }, (_, i) => book.ids[i % book.ids.length]!), max_tokens: ANSWER_TOKENS, ignore_eos: true, long_context: settingsOf(row),
    });
    await ask(WARM_UP_TOKENS);
    const restBytes = residentOf(server.pid);
    const begun = Date.now();
    const state = { over: false };
    const [peak] = await Promise.all([watch(client, server.pid, state), ask(tokens - ANSWER_TOKENS).finally(() => { state.over = true; })]);
    return { row, tokens, restBytes, ...peak, seconds: (Date.now() - begun) / 1000 };
  } finally {
    await client.close();
    await server.stop();
  }
}

async function watch(client: Client, pid: number, state: { readonly over: boolean }): Promise<{ peakBytes: number; pagesHeld: number }> {
  let [peakBytes, pagesHeld] = [0, 0];
  while (!state.over) {
    peakBytes = Math.max(peakBytes, residentOf(pid));
    pagesHeld = Math.max(pagesHeld, sumOf(parseMetrics((await client.get('/metrics')).text), 'longspan:pages', { state: 'held' }) ?? 0);
    await sleep(SAMPLE_MS);
  }
  return { peakBytes, pagesHeld };
}

function residentOf(pid: number): number {
  const usage = usageOf(pid);
  if (usage === null) throw new Error('this system has no /proc: memory cannot be measured');
  return usage.residentBytes;
}

function print(figures: readonly Figure[]): void {
  const growth = ({ peakBytes, restBytes }: Figure): number => peakBytes - restBytes;
  const rows = figures.map((figure) => {
    const dense = figures.find(({ row, tokens }) => row === 'dense' && tokens === figure.tokens);
    const share = dense === undefined ? '-' : `${((100 * growth(figure)) / growth(dense)).toFixed(0)} %`;
    return [
      titleOf(figure.row), nameOfLength(figure.tokens), (growth(figure) / 1e6).toFixed(1), share, figure.pagesHeld.toFixed(0),
      (figure.restBytes / 1e6).toFixed(0), figure.seconds.toFixed(0),
    ];
  });
  console.log(alignColumns([['attention', 'tokens', 'growth MB', 'of dense', 'pages held', 'at rest MB', 'seconds'], ...rows]));
}

async function main(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const lengths = values.lengths.split(',').map((text) => tokenCount('--lengths', text));
  const rows = values.rows.split(',');
  rows.forEach(settingsOf);
  const serverFlags = (['precision', 'threads', 'model'] as const).flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, values[name]]));
  const figures: Figure[] = [];
  for (const tokens of lengths) {
    for (const row of rows) {
      figures.push(await measureRow(row, tokens, serverFlags));
      console.error(`${nameOfLength(tokens)} ${row}: ${figures.at(-1)!.seconds.toFixed(0)} s`);
    }
  }
  print(figures);
  console.log(JSON.stringify({ server: serverFlags, figures }));
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
