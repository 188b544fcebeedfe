/** Flags of the load generator: argv -> LoadOptions, or a RangeError that names the flag. */
import { parseArgs } from 'node:util';
import { parseMix, type LengthClass } from './prompts.ts';
import type { Objectives } from './report.ts';

export interface LoadOptions {
  readonly baseUrl: string;
  readonly apiKey: string | null;
  /** null: the first of /v1/models. */
  readonly model: string | null;
  readonly numPrompts: number;
  /** Infinity: all at once, as far as maxConcurrency allows. */
  readonly requestRate: number;
  readonly maxConcurrency: number;
  readonly mix: readonly LengthClass[];
  readonly outputLen: number;
  readonly seed: number;
  /** Share of the requests that their client leaves in mid-generation. */
  readonly cancelRate: number;
  readonly objectives: Objectives;
  /** Merged into every request body, e.g. {"long_context":{"attention":"lserve"}}. */
  readonly extraBody: object;
  readonly saveResult: string | null;
}

export const USAGE = `npm run loadtest -- [options]
  --base-url URL           server under test                       http://127.0.0.1:8000
  --api-key KEY            sent as Bearer token
  --model NAME             default: the first of /v1/models
  --num-prompts N          requests in total                       100
  --request-rate N|inf     Poisson arrivals per second             inf
  --max-concurrency N      at most so many at once                 64
  --mix T:S,T:S            prompt tokens and shares                512:0.8,16384:0.2
  --output-len N           tokens of each answer                   64
  --seed N                 makes a load again (and its prompts: a prefix cache will know them)   drawn
  --cancel-rate S          share of clients that leave in mid-generation   0
  --goodput ttft:MS,tpot:MS,e2el:MS   objectives of a good request
  --extra-body JSON        merged into every request
  --save-result FILE       writes the last line there too`;

const FLAGS = {
  'base-url': { type: 'string', default: 'http://127.0.0.1:8000' },
  'api-key': { type: 'string' },
  model: { type: 'string' },
  'num-prompts': { type: 'string', default: '100' },
  'request-rate': { type: 'string', default: 'inf' },
  'max-concurrency': { type: 'string', default: '64' },
  mix: { type: 'string', default: '512:0.8,16384:0.2' },
  'output-len': { type: 'string', default: '64' },
  seed: { type: 'string' },
  'cancel-rate': { type: 'string', default: '0' },
  goodput: { type: 'string', default: '' },
  'extra-body': { type: 'string', default: '{}' },
  'save-result': { type: 'string' },
  help: { type: 'boolean' },
} as const;

/** null when --help was asked for. */
export function parseLoadOptions(argv: readonly string[]): LoadOptions | null {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) return null;
  return {
    baseUrl: values['base-url'],
    apiKey: values['api-key'] ?? null,
    model: values.model ?? null,
    numPrompts: integer('--num-prompts', values['num-prompts']),
    requestRate: values['request-rate'] === 'inf' ? Infinity : positive('--request-rate', values['request-rate']),
    maxConcurrency: integer('--max-concurrency', values['max-concurrency']),
    mix: parseMix(values.mix),
    outputLen: integer('--output-len', values['output-len']),
    seed: values.seed === undefined ? Date.now() % 2 ** 32 : integer('--seed', values.seed, 0),
    cancelRate: share('--cancel-rate', values['cancel-rate']),
    objectives: parseObjectives(values.goodput),
    extraBody: JSON.parse(values['extra-body']) as object,
    saveResult: values['save-result'] ?? null,
  };
}

/** 'ttft:2000,tpot:50' in milliseconds. '' has none. */
export function parseObjectives(text: string): Objectives {
  const entries = text.split(/[, ]+/).filter(Boolean).map((part) => {
    const [name, bound] = part.split(':');
    if (!['ttft', 'tpot', 'e2el'].includes(name!)) throw new RangeError(`--goodput: '${name}' is none of ttft, tpot, e2el`);
    return [name, positive(`--goodput ${name}`, bound ?? '')] as const;
  });
  return Object.fromEntries(entries) as Objectives;
}

export function integer(flag: string, text: string, least = 1): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw new RangeError(`${flag} must be a whole number of at least ${least}, not '${text}'`);
  return value;
}

/** '16K' or '16384'. */
export function tokenCount(flag: string, text: string): number {
  return /k$/i.test(text) ? 1024 * integer(flag, text.slice(0, -1)) : integer(flag, text);
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value) || value <= 0) throw new RangeError(`${flag} must be a number above 0, not '${text}'`);
  return value;
}

function share(flag: string, text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1)) throw new RangeError(`${flag} must lie between 0 and 1, not '${text}'`);
  return value;
}
