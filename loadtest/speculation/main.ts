/**
 * What drafting is worth: `npm run bench:speculation -- --help`. Tokens for each pass of the model, and decode time
 * against plain dense and plain lserve decoding in the same run, for each drafter, on three workloads over one long
 * document, which is prefilled once. Starts a server unless --base-url names one. Tables, then one line of JSON.
 */
import { parseArgs } from 'node:util';
import { Client, HttpError } from '../client.ts';
import { readChatFrame, tokenize } from '../eval/build.ts';
import { firstModel } from '../load.ts';
import { tokenizeBook } from '../needle-tests.ts';
import { integer, tokenCount } from '../options.ts';
import { readBook } from '../prompts.ts';
import { startServer } from '../server-process.ts';
import { alignColumns } from '../table.ts';
import { figuresOf, tableOf, type Cell, type Figure } from './figures.ts';
import { measureBatch, prefill, ROWS, type Measured, type Subject } from './measure.ts';
import { buildWorkloads, quotedShare, WORKLOADS, type Workload } from './workloads.ts';

const USAGE = `npm run bench:speculation -- [options]
  --lengths L,L         document tokens, K = 1024                                    16K,64K
  --batches N,N         requests at the same time                                    1,4
  --temperatures T,T                                                                 0,0.7
  --workloads W,W       ${WORKLOADS.join(', ')}                                      all
  --rows R,R            ${Object.keys(ROWS).join(', ')}   all; dense is always measured
  --tokens N            of an answer                                                 96
  --rounds N            in which every row is measured once                          3
  --force               draft also where it is not expected to pay
  --seed N              another document                                             0
  --base-url URL        a running server; without it one is started, with
  --engine E --precision P --threads N --model DIR --draft-model DIR`;

const FLAGS = {
  lengths: { type: 'string', default: '16K,64K' },
  batches: { type: 'string', default: '1,4' },
  temperatures: { type: 'string', default: '0,0.7' },
  workloads: { type: 'string', default: WORKLOADS.join(',') },
  rows: { type: 'string', default: Object.keys(ROWS).join(',') },
  tokens: { type: 'string', default: '96' },
  rounds: { type: 'string', default: '3' },
  force: { type: 'boolean', default: false },
  seed: { type: 'string', default: '0' },
  'base-url': { type: 'string' },
  engine: { type: 'string' },
  precision: { type: 'string', default: 'int8' },
  threads: { type: 'string' },
  model: { type: 'string' },
  'draft-model': { type: 'string' },
  help: { type: 'boolean' },
} as const;

interface Options {
  readonly baseUrl: string | null;
  readonly serverFlags: readonly string[];
  readonly lengths: readonly number[];
  readonly batches: readonly number[];
  readonly temperatures: readonly number[];
  readonly workloads: readonly Workload[];
  readonly rows: readonly string[];
  readonly maxTokens: number;
  readonly rounds: number;
  readonly force: boolean;
  readonly seed: number;
}

/** null when --help was asked for. */
function readOptions(argv: readonly string[]): Options | null {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) return null;
  const lengths = values.lengths.split(',').map((text) => tokenCount('--lengths', text));
  const passed = (['engine', 'precision', 'threads', 'model', 'draft-model'] as const).flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, values[name]]));
  const unknown = values.rows.split(',').find((row) => !(row in ROWS)) ?? values.workloads.split(',').find((one) => !WORKLOADS.includes(one as Workload));
  if (unknown !== undefined) throw new RangeError(`'${unknown}' is no row and no workload`);
  return {
    baseUrl: values['base-url'] ?? null,
    // Two prefixes of the longest document, and room for a batch.
    serverFlags: [...passed, '--kv-tokens', String(3 * Math.max(...lengths) + 16_384)],
    lengths,
    batches: values.batches.split(',').map((text) => integer('--batches', text)),
    temperatures: values.temperatures.split(',').map(Number),
    workloads: values.workloads.split(',') as Workload[],
    rows: [...new Set(['dense', ...values.rows.split(',')])],
    maxTokens: integer('--tokens', values.tokens, 2),
    rounds: integer('--rounds', values.rounds),
    force: values.force,
    seed: integer('--seed', values.seed, 0),
  };
}

async function main(options: Options): Promise<void> {
  const server = options.baseUrl === null ? await startServer(options.serverFlags) : null;
  const client = new Client(server?.baseUrl ?? options.baseUrl!);
  try {
    const [model, frame, book] = await Promise.all([firstModel(client), readChatFrame(client), tokenizeBook(client, readBook())]);
    const rows = await offeredRows(client, model, options.rows);
    const figures: Figure[] = [];
    for (const tokens of options.lengths) {
      const workloads = await buildWorkloads({ client, frame, book, vocabulary: [] }, tokens, Math.max(...options.batches), options.seed);
      figures.push(...await measureLength({ client, model, workloads, force: options.force }, tokens, { ...options, rows }));
    }
    console.log(JSON.stringify({ server: options.serverFlags, rounds: options.rounds, maxTokens: options.maxTokens, force: options.force, figures }));
  } finally {
    await client.close();
    await server?.stop();
  }
}

/** Without the rows that this server refuses, which are named. */
async function offeredRows(client: Client, model: string, rows: readonly string[]): Promise<string[]> {
  const offered: string[] = [];
  for (const row of rows) {
    const rapid = ROWS[row]!['speculation'] === 'rapid' ? { question: 'What?', documents: ['Once'] } : {};
    try {
      await client.post('/v1/completions', { model, prompt: 'Once', max_tokens: 1, long_context: { ...ROWS[row], ...rapid } });
      offered.push(row);
    } catch (error) {
      if (!(error instanceof HttpError && error.status === 400)) throw error;
      console.error(`left out ${row}: ${error.message}`);
    }
  }
  return offered;
}

async function measureLength(subject: Subject, tokens: number, options: Options): Promise<Figure[]> {
  for (const row of options.rows.filter((one) => one === 'dense' || one === 'lserve')) {
    const begun = Date.now();
    await prefill(subject, row);
    console.error(`${tokens} tokens prefilled with ${row} in ${((Date.now() - begun) / 1000).toFixed(0)} s`);
  }
  const figures: Figure[] = [];
  for (const batch of options.batches) {
    for (const temperature of options.temperatures) {
      const own: Figure[] = [];
      for (const workload of options.workloads) own.push(...await measureCell(subject, { tokens, batch, temperature, workload }, options));
      console.log(`\n${tokens} tokens, batch ${batch}, temperature ${temperature}: tokens for each pass, ms a token of a sequence, times as fast as dense`);
      console.log(alignColumns(tableOf(own)));
      for (const { row, workload, offReasons } of own) if (offReasons.length > 0) console.log(`${row}, ${workload}: ${offReasons.join('; ')}`);
      figures.push(...own);
    }
  }
  return figures;
}

/** A first round warms up and does not count. */
async function measureCell(subject: Subject, cell: Cell, { rows, rounds, maxTokens, seed }: Options): Promise<Figure[]> {
  const measured: Record<string, Measured[]> = Object.fromEntries(rows.map((row) => [row, []]));
  const requests = subject.workloads.requests[cell.workload].slice(0, cell.batch);
  for (let round = -1; round < rounds; round++) {
    for (const row of rows) {
      const one = await measureBatch(subject, { row, requests, temperature: cell.temperature, maxTokens: round < 0 ? 8 : maxTokens, seed: seed + 100 * round });
      if (round >= 0) measured[row]!.push(one);
    }
  }
  console.error(`${cell.tokens} tokens, batch ${cell.batch}, temperature ${cell.temperature}, ${cell.workload}: done`);
  if (cell.workload === 'quote') console.log(await quotedLine(subject, measured['dense']!));
  return figuresOf(cell, measured);
}

/** How much of the answers was quoted: a model that does not quote says nothing about drafting quotations. */
async function quotedLine({ client, workloads }: Subject, dense: readonly Measured[]): Promise<string> {
  const answers = await Promise.all(dense.flatMap(({ texts }) => texts).map((text) => tokenize(client, text)));
  const share = answers.reduce((sum, ids) => sum + quotedShare(ids, workloads.documentIds), 0) / answers.length;
  return `of the answers that were to quote, ${(100 * share).toFixed(0)} % of the tokens stand in the document, eight or more in a row`;
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === null) console.log(USAGE);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
