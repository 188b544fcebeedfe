/** Flags of the needle evaluation: argv -> NeedleOptions, or a RangeError that names the flag. */
import { parseArgs } from 'node:util';
import { integer, tokenCount } from './options.ts';

/** Context of the test inside the prompt, in tokens. */
export const IN_PROMPT_LENGTH = 16 * 1024;
/** Long texts cost minutes each; documents per length as in docs/architecture.md. */
const DOCUMENTS: Readonly<Record<number, number>> = { [4 * 1024]: 40, [16 * 1024]: 12, [64 * 1024]: 10, [125 * 1024]: 8 };

export interface NeedleOptions {
  readonly baseUrl: string | null;
  readonly lengths: readonly number[];
  readonly documentsAt: (length: number) => number;
  readonly inPromptDocuments: number;
  readonly precisions: readonly string[];
  readonly rows: readonly string[];
  /** Of the server that is started; null leaves it to the server. */
  readonly threads: number | null;
  readonly seed: number;
}

export const NEEDLE_USAGE = `npm run eval:needle -- [options]
  --base-url URL       a running server; without it one is started per precision
  --lengths L,L        prompt tokens, K = 1024                    4K,16K,64K   (125K works too)
  --documents N        per length                                 40, 12, 10, 8 at 4K, 16K, 64K, 125K
  --in-prompt N        documents of the test inside the prompt    16   (0 leaves it out)
  --precision P,P                                                 int8,fp32
  --rows R,R           dense, streaming, lserve-1024, lserve-2048, lserve-2048-half   all but lserve-1024
  --threads N          of the server
  --seed N             other documents                            0`;

const FLAGS = {
  'base-url': { type: 'string' },
  lengths: { type: 'string', default: '4K,16K,64K' },
  documents: { type: 'string' },
  'in-prompt': { type: 'string', default: '16' },
  precision: { type: 'string', default: 'int8,fp32' },
  rows: { type: 'string', default: 'dense,streaming,lserve-2048,lserve-2048-half' },
  threads: { type: 'string' },
  seed: { type: 'string', default: '0' },
  help: { type: 'boolean' },
} as const;

/** null when --help was asked for. */
export function parseNeedleOptions(argv: readonly string[], knownRows: readonly string[]): NeedleOptions | null {
  const { values } = parseArgs({ args: [...argv], options: FLAGS });
  if (values.help) return null;
  const documents = values.documents === undefined ? null : integer('--documents', values.documents, 0);
  const rows = values.rows.split(',');
  const unknown = rows.find((row) => !knownRows.includes(row));
  if (unknown !== undefined) throw new RangeError(`--rows: '${unknown}' is none of ${knownRows.join(', ')}`);
  return {
    baseUrl: values['base-url'] ?? null,
    lengths: values.lengths.split(',').map((text) => tokenCount('--lengths', text)),
    documentsAt: (length) => documents ?? DOCUMENTS[length] ?? 10,
    inPromptDocuments: integer('--in-prompt', values['in-prompt'], 0),
    precisions: values.precision.split(','),
    rows,
    threads: values.threads === undefined ? null : integer('--threads', values.threads),
    seed: integer('--seed', values.seed, 0),
  };
}
