/** The attentions that the evaluation compares, by name. Pure. */
import type { LongContext } from '../needle-tests.ts';

const BUDGETS = [512, 1024, 2048, 4096, 8192];
const STREAMING_SHARES = [0, 25, 50, 75];

export const DEFAULT_ROWS: readonly string[] = [
  'dense', ...BUDGETS.flatMap((budget) => STREAMING_SHARES.map((share) => (share === 0 ? `lserve-${budget}` : `lserve-${budget}-${share}`))), 'streaming',
];

/** As in LServe: 128 sinks; a window of the middle sizes. */
const SINKS = 128;
const LSERVE_WINDOW = 1024;
const STREAMING_WINDOW = 2048;

/** dense; streaming-SINKS-WINDOW; lserve-BUDGET; lserve-BUDGET-SHARE with so many percent of the heads streaming, through a WINDOW of so many tokens. Throws RangeError. */
export function settingsOf(row: string): LongContext {
  if (row === 'dense') return { attention: 'dense' };
  const streaming = /^streaming(?:-(\d+)-(\d+))?$/.exec(row);
  if (streaming !== null) return { attention: 'streaming', sink_tokens: Number(streaming[1] ?? SINKS), local_tokens: Number(streaming[2] ?? STREAMING_WINDOW) };
  const [, budget, share, window] = /^lserve-(\d+)(?:-(\d+)(?:-(\d+))?)?$/.exec(row) ?? [];
  if (budget === undefined) throw new RangeError(`--rows: '${row}' is none of dense, streaming, streaming-SINKS-WINDOW, lserve-BUDGET, lserve-BUDGET-SHARE, lserve-BUDGET-SHARE-WINDOW`);
  const heads = share === undefined ? {} : { streaming_heads: Number(share) / 100, sink_tokens: SINKS, local_tokens: Number(window ?? LSERVE_WINDOW) };
  return { attention: 'lserve', token_budget: Number(budget), ...heads };
}

/** In words, for tables. */
export function titleOf(row: string): string {
  const settings = settingsOf(row);
  switch (settings['attention']) {
    case 'dense': return 'dense';
    case 'streaming': return `streaming, ${settings['sink_tokens']!} + ${settings['local_tokens']!}`;
    default: return `lserve ${settings['token_budget']!}${settings['streaming_heads'] === undefined ? '' : `, ${100 * Number(settings['streaming_heads'])} % streaming${windowOf(settings)}`}`;
  }
}

function windowOf({ local_tokens: window }: LongContext): string {
  return window === LSERVE_WINDOW ? '' : ` through ${window!}`;
}

/**
 * About how many seconds a prompt of `tokens` takes with this attention on two threads of an AMD EPYC (docs/log.md): a
 * token at depth d costs 0.36 ms and, where it reads everything, 0.09 µs for each token before it.
 */
export function prefillSeconds(row: string, tokens: number): number {
  const { attention, token_budget: budget = 0, streaming_heads: share = 0 } = settingsOf(row);
  if (attention === 'streaming') return 0.0003 * tokens;
  const perToken = 0.36e-3 + (attention === 'lserve' ? 0.05e-6 * Number(budget) * (1 - Number(share)) : 0);
  return perToken * tokens + (attention === 'dense' ? 0.045e-6 * tokens ** 2 : 0);
}
