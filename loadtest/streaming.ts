/**
 * Does streaming attention run for ever in constant memory and constant time per token? `npm run eval:streaming`: one
 * text of a million tokens through the bundled model, a prompt and its answer, with the memory and the time along the
 * way. Starts a server unless --base-url names one. A table for people, then one line of JSON.
 */
import { parseArgs } from 'node:util';
import { Client } from './client.ts';
import { firstModel } from './load.ts';
import { tokenizeBook } from './needle-tests.ts';
import { integer } from './options.ts';
import { readBook } from './prompts.ts';
import { startServer } from './server-process.ts';
import { percentile } from './statistics.ts';
import { positionOf, runStreaming, stretchesOf, type Sample, type StreamingPlan, type Stretch } from './streaming-run.ts';
import { alignColumns } from './table.ts';

const USAGE = `npm run eval:streaming -- [options]
  --base-url URL    a running server (its memory is then not measured)
  --prompt N        prompt tokens                                 900000
  --answer N        tokens to generate                            100000
  --every N         tokens between two samples                    20000
  --sink N          sink tokens                                   64
  --window N        most recent tokens                            1024
  --kv-tokens N     KV memory of the server, in tokens            8192
  --precision P     int8, fp32                                    int8
  --threads N       of the server
  --seed N          of the sampled answer                         0`;

const FLAGS = {
  'base-url': { type: 'string' },
  prompt: { type: 'string', default: '900000' },
  answer: { type: 'string', default: '100000' },
  every: { type: 'string', default: '20000' },
  sink: { type: 'string', default: '64' },
  window: { type: 'string', default: '1024' },
  'kv-tokens': { type: 'string', default: '8192' },
  precision: { type: 'string', default: 'int8' },
  threads: { type: 'string' },
  seed: { type: 'string', default: '0' },
  help: { type: 'boolean' },
} as const;

type Options = Omit<StreamingPlan, 'model' | 'bookIds' | 'pid'> & { readonly baseUrl: string | null; readonly serverFlags: readonly string[] };

/** null when --help was asked for. */
function readOptions(argv: readonly string[]): Options | null {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) return null;
  const threads = values.threads === undefined ? [] : ['--threads', values.threads];
  return {
    baseUrl: values['base-url'] ?? null,
    promptTokens: integer('--prompt', values.prompt),
    answerTokens: integer('--answer', values.answer),
    every: integer('--every', values.every),
    longContext: { attention: 'streaming', sink_tokens: integer('--sink', values.sink, 0), local_tokens: integer('--window', values.window) },
    seed: integer('--seed', values.seed, 0),
    serverFlags: ['--precision', values.precision, '--kv-tokens', values['kv-tokens'], ...threads],
  };
}

async function main(options: Options): Promise<void> {
  const server = options.baseUrl === null ? await startServer(options.serverFlags) : null;
  const client = new Client(server?.baseUrl ?? options.baseUrl!);
  try {
    const [model, book] = await Promise.all([firstModel(client), tokenizeBook(client, readBook())]);
    const plan = { ...options, model, bookIds: book.ids, pid: server?.pid ?? null };
    const { samples, result } = await runStreaming(client, plan, (sample) => { console.error(describeSample(sample)); });
    print(plan, samples, { text: result.text, metrics: result.metrics, server: options.serverFlags });
  } finally {
    await client.close();
    await server?.stop();
  }
}

function describeSample(sample: Sample): string {
  return `${positionOf(sample)} tokens (${sample.generated} generated): ${sample.seconds.toFixed(0)} s, ${megabytes(sample.residentBytes)} MB resident, ${sample.pagesHeld ?? '-'} pages held`;
}

interface Rest {
  readonly text: string;
  readonly metrics: unknown;
  readonly server: readonly string[];
}

const SHOWN_CHARACTERS = 300;

function print({ promptTokens, answerTokens, longContext, seed }: StreamingPlan, samples: readonly Sample[], { text, metrics, server }: Rest): void {
  const stretches = stretchesOf(samples);
  const rows = stretches.map((stretch) => {
    const sample = samples.find((one) => positionOf(one) === stretch.to)!;
    return [
      String(stretch.to), stretch.phase, stretch.msPerToken.toFixed(3), stretch.cpuMsPerToken?.toFixed(3) ?? '-',
      megabytes(sample.residentBytes), String(sample.pagesHeld ?? '-'),
    ];
  });
  console.log(alignColumns([['position', 'phase', 'ms a token', 'processor ms', 'resident MB', 'pages held'], ...rows]));
  const summary = { prefill: ends(stretches, 'prefill'), decode: ends(stretches, 'decode') };
  for (const [phase, figures] of Object.entries(summary)) {
    if (figures !== null) console.log(`${phase}: first third ${figures.first.toFixed(3)} processor ms a token, last third ${figures.last.toFixed(3)}`);
  }
  console.log(`the answer ends: ${JSON.stringify(text.slice(-SHOWN_CHARACTERS))}`);
  console.log(JSON.stringify({ promptTokens, answerTokens, longContext, seed, server, summary, samples, metrics }));
}

/** Median time of a token in the first and in the last third of a phase: processor time where it is known. null: too few stretches. */
function ends(stretches: readonly Stretch[], phase: Stretch['phase']): { first: number; last: number } | null {
  const times = stretches.filter((one) => one.phase === phase).map(({ cpuMsPerToken, msPerToken }) => cpuMsPerToken ?? msPerToken);
  const third = Math.floor(times.length / 3);
  if (third === 0) return null;
  const middle = (part: readonly number[]): number => percentile([...part].sort((a, b) => a - b), 50);
  return { first: middle(times.slice(0, third)), last: middle(times.slice(-third)) };
}

function megabytes(bytes: number | null): string {
  return bytes === null ? '-' : (bytes / 1e6).toFixed(0);
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === null) console.log(USAGE);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
