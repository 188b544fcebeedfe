/**
 * Does sparse attention still find things? `npm run eval:needle -- --help`: share of needle documents
 * answered rightly, by context length and attention, and retrieval inside the prompt. Starts a server per
 * precision unless --base-url names one. A table for people, then one line of JSON.
 */
import { Client, HttpError } from './client.ts';
import { firstModel } from './load.ts';
import { answersInPrompt, buildDocument, findsNeedle, tokenizeBook, type LongContext, type Target } from './needle-tests.ts';
import { IN_PROMPT_LENGTH, NEEDLE_USAGE, parseNeedleOptions, type NeedleOptions } from './needle-options.ts';
import { readBook } from './prompts.ts';
import { startServer } from './server-process.ts';
import { alignColumns } from './table.ts';

/** Settings of each row, as in docs/architecture.md. */
const ROWS: Readonly<Record<string, LongContext>> = {
  dense: { attention: 'dense' },
  streaming: { attention: 'streaming', sink_tokens: 128, local_tokens: 2048 },
  'lserve-1024': { attention: 'lserve', token_budget: 1024 },
  'lserve-2048': { attention: 'lserve', token_budget: 2048 },
  'lserve-2048-half': { attention: 'lserve', token_budget: 2048, streaming_heads: 0.5, sink_tokens: 128, local_tokens: 1024 },
};

/** Rows of the test inside the prompt; dense is 1 by construction and shows that the test works. */
const IN_PROMPT_ROWS = ['dense', 'lserve-2048'];

interface Score {
  right: number;
  of: number;
}

/** precision -> row -> column ('4K', ..., 'in-prompt 16K') -> score. */
type Scores = Record<string, Record<string, Record<string, Score>>>;

async function main(options: NeedleOptions): Promise<void> {
  const scores: Scores = {};
  const precisions = options.baseUrl === null ? options.precisions : ['server'];
  for (const precision of precisions) {
    const server = options.baseUrl === null ? await startServer(serverFlags(options, precision)) : null;
    const client = new Client(server?.baseUrl ?? options.baseUrl!);
    try {
      const target: Target = { client, model: await firstModel(client), book: await tokenizeBook(client, readBook()) };
      const rows = await offeredRows(target, options.rows);
      scores[precision] = Object.fromEntries(rows.map((row) => [row, {}]));
      await scoreLengths(target, options, scores[precision]);
      await scoreInPrompt(target, options, scores[precision]);
    } finally {
      await client.close();
      await server?.stop();
    }
  }
  print(options, scores);
}

function serverFlags(options: NeedleOptions, precision: string): string[] {
  return ['--precision', precision, ...(options.threads === null ? [] : ['--threads', String(options.threads)])];
}

/** Without the rows that this server refuses, which are named: streaming heads need a model whose heads are ranked. */
async function offeredRows(target: Target, rows: readonly string[]): Promise<string[]> {
  const offered: string[] = [];
  for (const row of rows) {
    try {
      await target.client.post('/v1/completions', { model: target.model, prompt: 'Once', max_tokens: 1, long_context: ROWS[row] });
      offered.push(row);
    } catch (error) {
      if (!(error instanceof HttpError && error.status === 400)) throw error;
      console.error(`left out ${row}: ${error.message}`);
    }
  }
  return offered;
}

async function scoreLengths(target: Target, options: NeedleOptions, scores: Scores[string]): Promise<void> {
  for (const length of options.lengths.filter((one) => options.documentsAt(one) > 0)) {
    for (let i = 0; i < options.documentsAt(length); i++) {
      const document = await buildDocument(target, seedOf(options, length, i), length);
      for (const row of Object.keys(scores)) {
        const { found, answer } = await findsNeedle(target, document, ROWS[row]!);
        count(scores, row, nameOf(length), found);
        if (!found) console.error(`${nameOf(length)} document ${i} ${row}: wanted ${document.value}, got ${JSON.stringify(answer)}`);
      }
    }
    console.error(`${nameOf(length)}: ${Object.entries(scores).map(([row, cells]) => `${row} ${share(cells[nameOf(length)])}`).join(', ')}`);
  }
}

/** Documents are taken until dense has got as many right as were asked for. */
async function scoreInPrompt(target: Target, options: NeedleOptions, scores: Scores[string]): Promise<void> {
  const rows = IN_PROMPT_ROWS.filter((row) => row in scores);
  const column = `in-prompt ${nameOf(IN_PROMPT_LENGTH)}`;
  let taken = 0;
  for (let i = 0; taken < options.inPromptDocuments && i < 4 * options.inPromptDocuments; i++) {
    const document = await buildDocument(target, seedOf(options, IN_PROMPT_LENGTH, i), IN_PROMPT_LENGTH);
    const dense = await findsNeedle(target, document, ROWS['dense']!);
    if (!dense.found) continue;
    taken++;
    for (const row of rows) count(scores, row, column, await answersInPrompt(target, document, dense, ROWS[row]!));
    console.error(`${column}: ${rows.map((row) => `${row} ${share(scores[row]?.[column])}`).join(', ')}`);
  }
}

function count(scores: Scores[string], row: string, column: string, right: boolean): void {
  const score = ((scores[row] ??= {})[column] ??= { right: 0, of: 0 });
  score.of++;
  if (right) score.right++;
}

function seedOf(options: NeedleOptions, length: number, index: number): number {
  return options.seed + length * 1000 + index;
}

function nameOf(length: number): string {
  return length % 1024 === 0 ? `${length / 1024}K` : String(length);
}

function share(score: Score | undefined): string {
  return score === undefined ? '-' : `${(score.right / score.of).toFixed(3)} (${score.right}/${score.of})`;
}

function print(options: NeedleOptions, scores: Scores): void {
  const columns = [...new Set(Object.values(scores).flatMap((rows) => Object.values(rows).flatMap((row) => Object.keys(row))))];
  const lines = Object.entries(scores).flatMap(([precision, rows]) =>
    Object.entries(rows).map(([row, cells]) => [`${precision} ${row}`, ...columns.map((column) => share(cells[column]))]));
  console.log(alignColumns([['attention', ...columns], ...lines]));
  console.log(JSON.stringify({ seed: options.seed, settings: ROWS, scores }));
}

try {
  const options = parseNeedleOptions(process.argv.slice(2), Object.keys(ROWS));
  if (options === null) console.log(NEEDLE_USAGE);
  else await main(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
