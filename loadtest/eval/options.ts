/** Flags of the quality evaluation: argv -> EvalOptions, or a RangeError that names the flag. */
import { parseArgs } from 'node:util';
import { integer, tokenCount } from '../options.ts';
import { TASKS } from './documents.ts';
import type { TaskRecord } from './results.ts';
import { DEFAULT_ROWS, settingsOf } from './rows.ts';

/** Documents of each kind per length: long ones cost minutes each. */
const DOCUMENTS: Readonly<Record<number, number>> = { [4 * 1024]: 10, [16 * 1024]: 5, [32 * 1024]: 3, [64 * 1024]: 2, [128 * 1024]: 1 };
const DEFAULT_DOCUMENTS = 4;
/** Left for the answer where a length is the whole context. */
const ANSWER_ROOM = 256;

export interface EvalOptions {
  readonly baseUrl: string | null;
  /** Flags of the server that is started. */
  readonly serverFlags: readonly string[];
  /** Names what is measured. */
  readonly precision: string;
  readonly tasks: readonly string[];
  readonly modes: readonly TaskRecord['mode'][];
  readonly rows: readonly string[];
  readonly lengths: readonly number[];
  readonly documentsAt: (length: number) => number;
  readonly seed: number;
  readonly texts: string | null;
  readonly results: string | null;
  /** Starts nothing new after so many minutes. */
  readonly minutes: number;
  readonly reportOnly: boolean;
  readonly write: string | null;
}

export const EVAL_USAGE = `npm run eval -- [options]
  --tasks T,T        ${TASKS.join(', ')}, perplexity   all
  --modes M,M        answer: the model answers; inside: a right answer stands in the prompt, and prefill must predict it   both
  --rows R,R         dense, streaming, streaming-SINKS-WINDOW, lserve-BUDGET, lserve-BUDGET-SHARE, lserve-BUDGET-SHARE-WINDOW     dense, streaming, all budgets 512 to 8192 with 0, 25, 50, 75 % streaming heads
  --lengths L,L      prompt tokens, K = 1024                                  4K,16K   (8K, 32K, 64K, 128K)
  --documents N      of each kind per length                                  10, 5, 3, 2, 1 at 4K, 16K, 32K, 64K, 128K
  --seed N           other documents                                          0
  --texts FILE       text or JSON lines (field text) for perplexity           the load generator's book, which the bundled model was trained on
  --results FILE     appended to; a run goes on where the file ends
  --minutes N        start nothing new after N minutes
  --report           tables of the results only
  --write FILE       write the tables into this document, between its marks
  --base-url URL     a running server; without it one is started, with
  --engine E --precision P --threads N --model DIR --head-file FILE`;

const FLAGS = {
  tasks: { type: 'string', default: [...TASKS, 'perplexity'].join(',') },
  modes: { type: 'string', default: 'answer,inside' },
  rows: { type: 'string', default: DEFAULT_ROWS.join(',') },
  lengths: { type: 'string', default: '4K,16K' },
  documents: { type: 'string' },
  seed: { type: 'string', default: '0' },
  texts: { type: 'string' },
  results: { type: 'string' },
  minutes: { type: 'string' },
  report: { type: 'boolean', default: false },
  write: { type: 'string' },
  'base-url': { type: 'string' },
  engine: { type: 'string' },
  precision: { type: 'string', default: 'int8' },
  threads: { type: 'string' },
  model: { type: 'string' },
  'head-file': { type: 'string' },
  help: { type: 'boolean' },
} as const;

/** null when --help was asked for. */
export function parseEvalOptions(argv: readonly string[]): EvalOptions | null {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) return null;
  const lengths = values.lengths.split(',').map((text) => tokenCount('--lengths', text));
  const documents = values.documents === undefined ? null : integer('--documents', values.documents, 0);
  const rows = values.rows.split(',');
  rows.forEach(settingsOf);
  return {
    baseUrl: values['base-url'] ?? null,
    serverFlags: serverFlags(values, Math.max(...lengths)),
    precision: nameOfServer(values),
    tasks: listOf('--tasks', values.tasks, [...TASKS, 'perplexity']),
    modes: listOf('--modes', values.modes, ['answer', 'inside']) as TaskRecord['mode'][],
    rows, lengths, documentsAt: (length) => documents ?? DOCUMENTS[length] ?? DEFAULT_DOCUMENTS,
    seed: integer('--seed', values.seed, 0),
    texts: values.texts ?? null,
    results: values.results ?? null,
    minutes: values.minutes === undefined ? Infinity : Number(values.minutes),
    reportOnly: values.report,
    write: values.write ?? null,
  };
}

type Values = ReturnType<typeof parseArgs<{ options: typeof FLAGS }>>['values'];

function nameOfServer({ 'base-url': baseUrl, engine, precision }: Values): string {
  if (baseUrl !== undefined) return 'server';
  return engine === undefined ? precision : `${precision} on ${engine}`;
}

/** KV memory for two of the longest texts, so that questions find their document in the prefix cache. */
function serverFlags(values: Values, longest: number): string[] {
  const passed = (['engine', 'precision', 'threads', 'model', 'head-file'] as const).flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, values[name]]));
  return [...passed, '--kv-tokens', String(2 * longest + 16_384)];
}

function listOf(flag: string, text: string, known: readonly string[]): string[] {
  const items = text.split(',');
  const unknown = items.find((item) => !known.includes(item));
  if (unknown !== undefined) throw new RangeError(`${flag}: '${unknown}' is none of ${known.join(', ')}`);
  return items;
}

/** Tokens of a prompt of this nominal length: the whole context has to hold the answer too. */
export function promptTokensOf(length: number, contextLength: number): number {
  return Math.min(length, contextLength - ANSWER_ROOM);
}

export function nameOfLength(length: number): string {
  return length % 1024 === 0 ? `${length / 1024}K` : String(length);
}
