/** Tables of what was measured, for people and for docs/quality.md. Pure. Called by main.ts. */
import { TASKS } from './documents.ts';
import { nameOfLength } from './options.ts';
import type { EvalRecord, PerplexityRecord, TaskRecord } from './results.ts';
import { titleOf } from './rows.ts';

export interface Table {
  readonly title: string;
  /** [rows][columns], the first row being the heads. */
  readonly cells: readonly (readonly string[])[];
}

type Mode = TaskRecord['mode'];

/** One table for each model, precision, length and mode; the perplexity stands in a table of its own. `rows` gives the order. */
export function tablesOf(records: readonly EvalRecord[], rows: readonly string[]): Table[] {
  const servers = [...new Set(records.map(serverOf))];
  return servers.flatMap((server) => {
    const own = records.filter((record) => serverOf(record) === server);
    const lengths = [...new Set(own.map(({ tokens }) => tokens))].sort((a, b) => a - b);
    const ordered = [...rows.filter((row) => own.some((record) => record.row === row)), ...new Set(own.map(({ row }) => row).filter((row) => !rows.includes(row)))];
    const ofTasks = lengths.flatMap((tokens) => (['answer', 'inside'] as const).flatMap((mode) => taskTable({ server, tokens, mode }, own, ordered)));
    return [...ofTasks, ...perplexityTable(server, own, ordered, lengths)];
  });
}

function serverOf({ model, precision }: EvalRecord): string {
  return `${model}, ${precision}`;
}

interface Subject {
  readonly server: string;
  readonly tokens: number;
  readonly mode: Mode;
}

function taskTable({ server, tokens, mode }: Subject, records: readonly EvalRecord[], rows: readonly string[]): Table[] {
  const own = records.filter((record): record is TaskRecord => record.task !== 'perplexity' && record.tokens === tokens && record.mode === mode);
  const tasks = TASKS.filter((task) => own.some((record) => record.task === task));
  if (tasks.length === 0) return [];
  const dense = own.filter(({ row }) => row === 'dense');
  const [looked, isMixed] = [(record: TaskRecord) => record.task !== COUNTING_TASK, tasks.includes(COUNTING_TASK) && tasks.length > 1];
  const lines = rows.filter((row) => own.some((record) => record.row === row)).map((row) => {
    const ofRow = own.filter((record) => record.row === row);
    const cells = tasks.map((task) => share(ofRow.filter((record) => record.task === task)));
    const averages = (wanted: (record: TaskRecord) => boolean): string[] =>
      [percent(meanOf(ofRow.filter(wanted))), row === 'dense' ? '' : signed(againstDense(ofRow.filter(wanted), dense.filter(wanted)))];
    return [titleOf(row), ...cells, ...averages(() => true), ...(isMixed ? averages(looked) : [])];
  });
  const how = mode === 'answer' ? 'answers' : 'inside the prompt';
  const heads = ['attention', ...tasks, 'average', 'to dense', ...(isMixed ? [`without ${COUNTING_TASK}`, 'to dense'] : [])];
  return [{ title: `${server}, ${nameOfLength(tokens)}, ${how}`, cells: [heads, ...lines] }];
}

/** Small models cannot count: what they hit is chance, so there is an average without it too. */
const COUNTING_TASK = 'common-words';

function share(records: readonly TaskRecord[]): string {
  return records.length === 0 ? '-' : `${sum(records, ({ found }) => found)}/${sum(records, ({ of }) => of)}`;
}

/** Mean over the tasks of the share of values found, 0..1. NaN without records. */
export function meanOf(records: readonly TaskRecord[]): number {
  const tasks = TASKS.map((task) => records.filter((record) => record.task === task)).filter(({ length }) => length > 0);
  return tasks.reduce((total, own) => total + sum(own, ({ found }) => found) / sum(own, ({ of }) => of), 0) / tasks.length;
}

/** Difference of the means over the questions that both were asked. NaN without such. */
function againstDense(records: readonly TaskRecord[], dense: readonly TaskRecord[]): number {
  const idOf = ({ seed, task, question }: TaskRecord): string => `${seed} ${task} ${question}`;
  const [ours, theirs] = [new Set(records.map(idOf)), new Set(dense.map(idOf))];
  return meanOf(records.filter((record) => theirs.has(idOf(record)))) - meanOf(dense.filter((record) => ours.has(idOf(record))));
}

/** exp of the mean negative log-likelihood over all texts of a cell, and of how many tokens. */
function perplexityTable(server: string, records: readonly EvalRecord[], rows: readonly string[], lengths: readonly number[]): Table[] {
  const own = records.filter((record): record is PerplexityRecord => record.task === 'perplexity');
  const measured = lengths.filter((tokens) => own.some((record) => record.tokens === tokens));
  if (measured.length === 0) return [];
  const lines = rows.filter((row) => own.some((record) => record.row === row)).map((row) => [titleOf(row), ...measured.map((tokens) => {
    const cell = own.filter((record) => record.row === row && record.tokens === tokens);
    const of = sum(cell, (record) => record.of);
    return of === 0 ? '-' : `${Math.exp(sum(cell, ({ nll }) => nll) / of).toFixed(3)} (${cell.length})`;
  })]);
  return [{ title: `${server}, perplexity of the second half of texts (how many)`, cells: [['attention', ...measured.map(nameOfLength)], ...lines] }];
}

function sum<Item>(items: readonly Item[], read: (item: Item) => number): number {
  return items.reduce((total, item) => total + read(item), 0);
}

function percent(value: number): string {
  return Number.isNaN(value) ? '-' : (100 * value).toFixed(1);
}

function signed(value: number): string {
  return Number.isNaN(value) ? '-' : `${value >= 0 ? '+' : ''}${(100 * value).toFixed(1)}`;
}

export function markdown(tables: readonly Table[]): string {
  return tables.map(({ title, cells: [head, ...lines] }) => [
    `**${title}**`, '', line(head!), line(head!.map(() => '---')), ...lines.map(line),
  ].join('\n')).join('\n\n');
}

function line(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

const BEGIN = '<!-- tables of npm run eval: begin -->';
const END = '<!-- tables of npm run eval: end -->';

/** The document with these tables between its marks. Throws when it has none. */
export function withTables(document: string, tables: readonly Table[]): string {
  const [begin, end] = [document.indexOf(BEGIN), document.indexOf(END)];
  if (begin === -1 || end < begin) throw new Error(`the document has no lines '${BEGIN}' and '${END}'`);
  return `${document.slice(0, begin + BEGIN.length)}\n\n${markdown(tables)}\n\n${document.slice(end)}`;
}
