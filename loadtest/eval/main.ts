/**
 * How good are the answers under each attention? `npm run eval -- --help`: tasks of the RULER kinds at several lengths,
 * each asked after the prompt and inside it, and perplexity. Starts a server unless --base-url names one; a run that
 * was cut off goes on. Tables for people, then one line of JSON.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Client, HttpError } from '../client.ts';
import { tokenizeBook } from '../needle-tests.ts';
import { readBook } from '../prompts.ts';
import { startServer } from '../server-process.ts';
import { alignColumns } from '../table.ts';
import { buildPrompts, readChatFrame, tokenize, type Source } from './build.ts';
import { FAMILIES, type Task } from './documents.ts';
import { EVAL_USAGE, nameOfLength, parseEvalOptions, promptTokensOf, type EvalOptions } from './options.ts';
import { tablesOf, withTables } from './report.ts';
import { keyOf, Results, type EvalRecord, type Place } from './results.ts';
import { prefillSeconds, settingsOf } from './rows.ts';
import { askDocument, scoreText, type Asked } from './run.ts';
import { readTexts, stretchOf } from './texts.ts';
import { wordsOf } from './words.ts';

interface Subject {
  readonly client: Client;
  readonly model: string;
  readonly contextLength: number;
  readonly source: Source;
  /** Tokens of the texts for perplexity. */
  readonly texts: readonly (readonly number[])[];
}

/** One document, or one stretch of text, under one attention. */
interface Item {
  readonly row: string;
  /** Nominal; names the cell. */
  readonly length: number;
  readonly index: number;
  /** null: perplexity. */
  readonly family: readonly Task[] | null;
}

async function measure(options: EvalOptions, results: Results): Promise<void> {
  const server = options.baseUrl === null ? await startServer(options.serverFlags) : null;
  const client = new Client(server?.baseUrl ?? options.baseUrl!);
  try {
    const subject = await readSubject(client, options);
    const rows = await offeredRows(subject, options.rows);
    await runItems(options, subject, itemsOf({ ...options, rows }), results);
  } finally {
    await client.close();
    await server?.stop();
  }
}

async function readSubject(client: Client, options: EvalOptions): Promise<Subject> {
  const { data: [model] } = JSON.parse((await client.get('/v1/models')).text) as { data: { id: string; max_model_len: number }[] };
  if (model === undefined) throw new Error('GET /v1/models names no model');
  const [frame, book] = await Promise.all([readChatFrame(client), tokenizeBook(client, readBook())]);
  const wantsTexts = options.tasks.includes('perplexity');
  const texts = wantsTexts ? await Promise.all(readTexts(options.texts).map((text) => tokenize(client, text))) : [];
  return { client, model: model.id, contextLength: model.max_model_len, source: { client, frame, book, vocabulary: wordsOf(readBook()) }, texts };
}

/** Without the rows that this server refuses, which are named. */
async function offeredRows({ client, model }: Subject, rows: readonly string[]): Promise<string[]> {
  const offered: string[] = [];
  for (const row of rows) {
    try {
      await client.post('/v1/completions', { model, prompt: 'Once', max_tokens: 1, long_context: settingsOf(row) });
      offered.push(row);
    } catch (error) {
      if (!(error instanceof HttpError && error.status === 400)) throw error;
      console.error(`left out ${row}: ${error.message}`);
    }
  }
  return offered;
}

/** Short texts first, and each document under all attentions before the next: what a cut run has can be compared. */
function itemsOf({ lengths, rows, tasks, documentsAt }: Pick<EvalOptions, 'lengths' | 'rows' | 'tasks' | 'documentsAt'>): Item[] {
  const families = [...FAMILIES.map((family) => family.filter((task) => tasks.includes(task))).filter(({ length }) => length > 0), ...(tasks.includes('perplexity') ? [null] : [])];
  return lengths.toSorted((a, b) => a - b).flatMap((length) =>
    Array.from({ length: documentsAt(length) }, (_, index) => families.flatMap((family) => rows.map((row): Item => ({ row, length, index, family })))).flat());
}

async function runItems(options: EvalOptions, subject: Subject, items: readonly Item[], results: Results): Promise<void> {
  const open = items.filter((item) => !isDone(item, options, subject, results));
  const costs = open.map(({ row, length }) => prefillSeconds(row, length));
  let left = costs.reduce((total, cost) => total + cost, 0);
  console.error(`${open.length} of ${items.length} documents to ask, about ${minutes(left)} on two threads of an AMD EPYC`);
  const begun = Date.now();
  let done = 0;
  for (const [i, item] of open.entries()) {
    if ((Date.now() - begun) / 60_000 > options.minutes) break;
    await runItem(item, options, subject, results);
    done += costs[i]!;
    left -= costs[i]!;
    const ahead = ((Date.now() - begun) / 1000) * (left / done);
    console.error(`${i + 1}/${open.length} ${nameOfLength(item.length)} ${item.family?.join(' ') ?? 'perplexity'} ${item.row}; ${minutes(ahead)} left`);
  }
}

function placeOf({ row, length, index }: Item, { seed, precision }: EvalOptions, { model }: Subject): Place {
  return { model, precision, row, tokens: length, seed: seed + index };
}

function isDone(item: Item, options: EvalOptions, subject: Subject, results: Results): boolean {
  const place = placeOf(item, options, subject);
  if (item.family === null) return results.has(keyOf({ ...place, task: 'perplexity', nll: 0, of: 0 }));
  // Records of a document are written together: its first question tells of all.
  return item.family.every((task) => options.modes.every((mode) => results.has(keyOf({ ...place, task, question: 0, mode, found: 0, of: 0 }))));
}

async function runItem(item: Item, options: EvalOptions, subject: Subject, results: Results): Promise<void> {
  const place = placeOf(item, options, subject);
  const asked: Asked = { client: subject.client, place, longContext: settingsOf(item.row) };
  const tokens = promptTokensOf(item.length, subject.contextLength);
  for (const record of await recordsOf(item, asked, options, subject, tokens)) results.add(record);
}

async function recordsOf({ family, length, index }: Item, asked: Asked, { modes }: EvalOptions, { source, texts }: Subject, tokens: number): Promise<EvalRecord[]> {
  if (family !== null) {
    const prompts = await buildPrompts(source, family, seedOf(asked.place.seed, length), tokens);
    return askDocument(asked, prompts.filter(({ question }) => family.includes(question.task)), modes);
  }
  const text = stretchOf(texts, index, tokens);
  if (text !== null) return [await scoreText(asked, text)];
  console.error(`left out: the texts have no ${index + 1} stretches of ${tokens} tokens`);
  return [];
}

/** Other documents at every length. */
function seedOf(seed: number, length: number): number {
  return (seed * 1_000_003 + length) % 2 ** 32;
}

function minutes(seconds: number): string {
  return seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

async function main(options: EvalOptions): Promise<void> {
  const results = new Results(options.results);
  if (!options.reportOnly) await measure(options, results);
  const tables = tablesOf(results.all, options.rows);
  for (const { title, cells } of tables) console.log(`\n${title}\n${alignColumns(cells)}`);
  if (options.write !== null) writeFileSync(options.write, withTables(readFileSync(options.write, 'utf8'), tables));
  console.log(JSON.stringify({ seed: options.seed, settings: Object.fromEntries(options.rows.map((row) => [row, settingsOf(row)])), records: results.all }));
}

try {
  const options = parseEvalOptions(process.argv.slice(2));
  if (options === null) console.log(EVAL_USAGE);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
