/**
 * Command lines of the benchmarks: values, or help and what is wrong said plainly instead of a stack trace.
 * Knows no benchmark. Called by bench.ts and bench-attention.ts.
 */
import { parseArgs } from 'node:util';
import { isNativeError } from 'node:util/types';

export interface Flag {
  readonly type: 'string' | 'boolean';
  readonly multiple?: boolean;
  readonly default?: string | boolean;
}

type Flags = Readonly<Record<string, Flag>>;
type Values<T extends Flags> = ReturnType<typeof parseArgs<{ args: string[]; options: T }>>['values'];

/** null after --help, and after a wrong flag with exit code 2. */
export function readFlags<const T extends Flags>(options: T, usage: string): Values<T> | null {
  const args = process.argv.slice(2);
  if (args.includes('--help')) {
    process.stdout.write(`${usage}\n`);
    return null;
  }
  try {
    return parseArgs({ args, options }).values;
  } catch (error) {
    if (!isNativeError(error)) throw error;
    process.stderr.write(`${error.message}\n\n${usage}\n`);
    process.exitCode = 2;
    return null;
  }
}
