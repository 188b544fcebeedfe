/**
 * One batch of requests decoded with one drafter: what the answers' own metrics say. Talks HTTP. Called by main.ts.
 */
import type { Client } from '../client.ts';
import type { Request, Workloads } from './workloads.ts';

/** Settings by row; `rapid` is given the document and the question besides. */
export const ROWS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  dense: { attention: 'dense', speculation: 'off' },
  lserve: { attention: 'lserve', token_budget: 2048, speculation: 'off' },
  ngram: { attention: 'dense', speculation: 'ngram' },
  'triforce-none': { attention: 'dense', speculation: 'triforce', draft_level: 'none' },
  'triforce-ngram': { attention: 'dense', speculation: 'triforce', draft_level: 'ngram' },
  'triforce-model': { attention: 'dense', speculation: 'triforce', draft_level: 'model' },
  rapid: { attention: 'dense', speculation: 'rapid' },
  'rapid-self': { attention: 'dense', speculation: 'rapid', draft_level: 'none' },
};

export interface Subject {
  readonly client: Client;
  readonly model: string;
  readonly workloads: Workloads;
  /** Draft also where it is not expected to pay. */
  readonly force: boolean;
}

export interface Batch {
  readonly row: string;
  readonly requests: readonly Request[];
  readonly temperature: number;
  readonly maxTokens: number;
  readonly seed: number;
}

export interface Measured {
  /** Of decode, per token of a sequence, mean over the batch. */
  readonly msPerToken: number;
  readonly generated: number;
  /** Passes of the target after the first token. */
  readonly passes: number;
  readonly drafted: number;
  readonly accepted: number;
  /** By level, lowest first. */
  readonly levels: readonly { readonly level: string; readonly drafted_tokens: number; readonly accepted_tokens: number }[];
  readonly offReasons: readonly string[];
  readonly texts: readonly string[];
}

interface Answer {
  readonly choices: readonly [{ readonly text: string }];
  readonly metrics: {
    readonly decode_ms: number;
    readonly generated_tokens: number;
    readonly drafted_tokens: number;
    readonly accepted_tokens: number;
    readonly speculation: {
      readonly speculation: string;
      readonly verified_passes?: number;
      readonly plain_passes?: number;
      readonly levels?: Measured['levels'];
      readonly off_reason?: string | null;
    };
  };
}

/** The requests at the same time. */
export async function measureBatch(subject: Subject, batch: Batch): Promise<Measured> {
  const answers = await Promise.all(batch.requests.map((request, i) => ask(subject, batch, request, batch.seed + i)));
  return summed(answers);
}

/** Puts the document into the prefix cache, for the settings of a row. */
export async function prefill(subject: Subject, row: string): Promise<void> {
  await subject.client.post('/v1/completions', { model: subject.model, prompt: subject.workloads.documentIds, max_tokens: 1, long_context: ROWS[row] });
}

async function ask({ client, model, workloads, force }: Subject, { row, temperature, maxTokens }: Batch, { ids, question, toTheEnd }: Request, seed: number): Promise<Answer> {
  const settings = ROWS[row]!;
  const rapid = settings['speculation'] === 'rapid' ? { question, documents: [workloads.documentText] } : {};
  const forced = force && settings['speculation'] !== 'off' ? { force_speculation: true } : {};
  return await client.post('/v1/completions', {
    model, prompt: ids, temperature, seed, max_tokens: maxTokens, ...(toTheEnd && { min_tokens: maxTokens }),
    long_context: { ...settings, ...rapid, ...forced },
  }) as Answer;
}

/** Pure. The first token comes from prefill: decode makes the others. */
export function summed(answers: readonly Answer[]): Measured {
  const metrics = answers.map((answer) => answer.metrics);
  const sum = (read: (one: Answer['metrics']) => number): number => metrics.reduce((total, one) => total + read(one), 0);
  const decoded = metrics.filter(({ generated_tokens: generated }) => generated > 1);
  return {
    msPerToken: decoded.reduce((total, one) => total + one.decode_ms / (one.generated_tokens - 1), 0) / decoded.length,
    generated: sum((one) => one.generated_tokens),
    passes: sum(passesOf),
    drafted: sum((one) => one.drafted_tokens),
    accepted: sum((one) => one.accepted_tokens),
    levels: addLevels(metrics.flatMap(({ speculation }) => speculation.levels ?? [])),
    offReasons: [...new Set(metrics.flatMap(({ speculation }) => speculation.off_reason ?? []))],
    texts: answers.map(({ choices: [choice] }) => choice.text),
  };
}

/** Without drafting each token after the first has a pass of its own, and the engine does not count them. */
function passesOf({ generated_tokens: generated, speculation: { verified_passes: verified = 0, plain_passes: plain = 0 } }: Answer['metrics']): number {
  return verified + plain === 0 ? generated - 1 : verified + plain;
}

function addLevels(levels: Measured['levels']): Measured['levels'] {
  const names = [...new Set(levels.map(({ level }) => level))];
  return names.map((level) => {
    const own = levels.filter((one) => one.level === level);
    return {
      level, drafted_tokens: own.reduce((total, one) => total + one.drafted_tokens, 0), accepted_tokens: own.reduce((total, one) => total + one.accepted_tokens, 0),
    };
  });
}
