/**
 * What was measured, one record a question, as JSON lines: a run that was cut off goes on where it stopped. Knows files
 * and records, no servers and no tables.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { Task } from './documents.ts';

/** What was asked of which server. */
export interface Place {
  readonly model: string;
  /** 'server' where a running server was asked. */
  readonly precision: string;
  readonly row: string;
  /** Prompt length. */
  readonly tokens: number;
  readonly seed: number;
}

export interface TaskRecord extends Place {
  readonly task: Task;
  /** Of a document's questions of this task, counted from 0. */
  readonly question: number;
  /** The model answers, or a right answer stands inside the prompt. */
  readonly mode: 'answer' | 'inside';
  /** Values found, of so many. */
  readonly found: number;
  readonly of: number;
  /** What was answered, where it was not right. */
  readonly answer?: string;
}

export interface PerplexityRecord extends Place {
  readonly task: 'perplexity';
  /** Negative log-likelihood in nats, summed over `of` tokens. */
  readonly nll: number;
  readonly of: number;
}

export type EvalRecord = TaskRecord | PerplexityRecord;

/** Names one record: the same for the same question to the same server. */
export function keyOf(record: EvalRecord): string {
  const { model, precision, row, tokens, seed, task } = record;
  return [model, precision, row, tokens, seed, task, ...(record.task === 'perplexity' ? [] : [record.question, record.mode])].join(' ');
}

/** Records, in memory and in a file if one is named. */
export class Results {
  readonly #file: string | null;
  readonly #records = new Map<string, EvalRecord>();

  /** Reads what the file has. A last line that was cut off is measured again. */
  constructor(file: string | null) {
    this.#file = file;
    if (file === null || !existsSync(file)) return;
    const lines = readFileSync(file, 'utf8').split('\n');
    const cutOff = lines.pop();
    for (const line of lines) this.#keep(JSON.parse(line) as EvalRecord);
    if (cutOff !== '') writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
  }

  get all(): EvalRecord[] {
    return [...this.#records.values()];
  }

  has(key: string): boolean {
    return this.#records.has(key);
  }

  add(record: EvalRecord): void {
    this.#keep(record);
    if (this.#file !== null) appendFileSync(this.#file, `${JSON.stringify(record)}\n`);
  }

  #keep(record: EvalRecord): void {
    this.#records.set(keyOf(record), record);
  }
}
