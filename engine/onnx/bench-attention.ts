/**
 * What attention policies save over dense attention on the CPU engine (npm run bench:attention): decode,
 * prefill and verification passes at several depths. Every figure is a ratio to dense, or to one token, in
 * the same run: rows are measured in turns, and each turn gives one ratio, so that a noisy machine disturbs
 * all alike. Prints tables and, last, one JSON line. Knows no scheduler.
 */
import { cpus } from 'node:os';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import {
  chunkAt, DEFAULT_MODEL, denseSettings, loadEngine, lserveSettings, median, pageTables, print, seldomSelecting, streamingSettings,
  type BenchEngine, type BenchModel,
} from './bench-engine.ts';
import { readFlags } from './bench-flags.ts';

const PARTS = ['decode', 'prefill', 'verify'] as const;
type Part = typeof PARTS[number];

interface Options extends BenchModel {
  readonly parts: readonly Part[];
  readonly verifyDepths: readonly number[];
  /** Turns that count; one more goes before them. */
  readonly rounds: number;
}

interface Row {
  readonly name: string;
  readonly settings: AttentionSettings;
  readonly phase: Chunk['phase'];
  readonly chunkTokens: number;
  /** Consecutive chunks that make up one turn. */
  readonly chunks: number;
}

interface Figure {
  readonly part: Part;
  readonly row: string;
  readonly depth: number;
  readonly batch: number;
  /** Median time of one token of each sequence (decode, prefill), or of one pass (verify). */
  readonly ms: number;
  /** Decode, prefill: times as fast as dense. Verify: cost of a pass in passes of one token. Median of the turns' ratios. */
  readonly ratio: number;
}

/** Chunks of one part of a table at one depth. */
interface Cell {
  readonly part: Part;
  readonly rows: readonly Row[];
  readonly depth: number;
  readonly batch: number;
}

const DEPTHS = ['4096', '16384', '65536', '131072'];
const VERIFY_DEPTHS = ['16384', '65536'];
const VERIFIED_TOKENS = [1, 2, 4, 8, 16];
/** Where one step selects and the next three reuse its pages, a turn of decode has all four. */
const DECODE_STEPS = seldomSelecting.selectionInterval;

function techniques(hasHeads: boolean): readonly { name: string; settings: AttentionSettings }[] {
  const half = { name: 'lserve 2048, half streaming', settings: { ...lserveSettings, streamingHeads: 0.5 } };
  return [
    { name: 'dense', settings: denseSettings },
    { name: 'lserve 2048', settings: lserveSettings },
    ...(hasHeads ? [half] : []),
    { name: 'streaming 128 + 1024', settings: streamingSettings },
  ];
}

function rowsOf(part: Part, hasHeads: boolean): Row[] {
  switch (part) {
    case 'decode': return [...techniques(hasHeads), { name: 'lserve 2048, selecting seldom', settings: seldomSelecting }]
      .map((row) => ({ ...row, phase: 'decode', chunkTokens: 1, chunks: DECODE_STEPS }));
    case 'prefill': return techniques(hasHeads).map((row) => {
      const isDense = row.settings.attention === 'dense';
      return { ...row, phase: 'prefill', chunkTokens: isDense ? 512 : 128, chunks: isDense ? 1 : 4 };
    });
    case 'verify': return VERIFIED_TOKENS.map((tokens) =>
      ({ name: `dense, pass of ${tokens}`, settings: denseSettings, phase: 'decode', chunkTokens: tokens, chunks: 1 }));
  }
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options === null) return;
  const bench = await loadEngine(options);
  print(`${cpus()[0]?.model ?? 'unknown CPU'}, ${options.threads} threads, ${options.model}, ${options.precision}, ${options.rounds} turns`);
  const figures: Figure[] = [];
  for (const part of options.parts) {
    const rows = rowsOf(part, bench.hasHeads);
    for (const batch of part === 'verify' ? [1] : options.batches) figures.push(...await table(bench, options, { part, rows, batch }));
  }
  await bench.engine.close();
  print(JSON.stringify({ cpu: cpus()[0]?.model, threads: options.threads, precision: options.precision, rounds: options.rounds, figures }));
}

async function table(bench: BenchEngine, { depths, verifyDepths, rounds }: Options, { part, rows, batch }: Omit<Cell, 'depth'>): Promise<Figure[]> {
  const measured = part === 'verify' ? verifyDepths : depths;
  const columns: Figure[][] = [];
  for (const depth of measured) columns.push(await measure(bench, { part, rows, depth, batch }, rounds));
  const ratio = part === 'verify' ? 'cost in passes of one token' : 'times as fast as dense';
  print(`\n${part}, batch ${batch}: ms a ${part === 'verify' ? 'pass' : 'token'} (${ratio})`);
  print(' '.repeat(32) + measured.map((depth) => String(depth).padStart(20)).join(''));
  rows.forEach(({ name }, index) => {
    const cells = columns.map((column) => `${column[index]!.ms.toPrecision(3)} (${column[index]!.ratio.toFixed(2)})`);
    print(name.padEnd(32) + cells.map((cell) => cell.padStart(20)).join(''));
  });
  return columns.flat();
}

async function measure(bench: BenchEngine, cell: Cell, rounds: number): Promise<Figure[]> {
  const { part, rows, depth, batch } = cell;
  const times: number[][] = rows.map(() => []); // [rows, rounds]
  for (let round = -1; round < rounds; round++) {
    for (const [index, row] of rows.entries()) {
      const ms = await turn(bench, row, cell);
      if (round >= 0) times[index]!.push(ms);
    }
  }
  rows.forEach((_, index) => { for (let b = 0; b < batch; b++) bench.engine.forget(index * batch + b); });
  const base = times[0]!;
  return rows.map(({ name }, index): Figure => {
    const ratios = times[index]!.map((ms, round) => (part === 'verify' ? ms / base[round]! : base[round]! / ms));
    return { part, row: name, depth, batch, ms: median(times[index]!), ratio: median(ratios) };
  });
}

/** Milliseconds for a token of each sequence, or for the pass. The last chunk ends at the depth. */
async function turn({ engine, policyOf }: BenchEngine, row: Row, { part, rows, depth, batch }: Cell): Promise<number> {
  const { settings, phase, chunkTokens, chunks } = row;
  const policy = policyOf(settings);
  const tables = pageTables(engine, batch);
  const first = depth - chunkTokens * chunks;
  const began = performance.now();
  for (let chunk = 0; chunk < chunks; chunk++) {
    await engine.run(tables.map((pageTable, b) => chunkAt({
      engine, policy, pageTable, sequenceId: rows.indexOf(row) * batch + b, start: first + chunk * chunkTokens, tokens: chunkTokens, phase,
    })));
  }
  const ms = performance.now() - began;
  return part === 'verify' ? ms : ms / (chunkTokens * chunks);
}

const USAGE = `npm run bench:attention -- [options]
  --model DIR      checkpoint                       the bundled model
  --threads N      of the engine                    2
  --precision P    int8 or fp32                     int8
  --only PART      decode, prefill or verify        all; may be given several times
  --depth N        tokens of the text               ${DEPTHS.join(', ')}; may be given several times
  --batch N        sequences in a step              1, 8; may be given several times
  --rounds N       turns of each row                15
  --quick          4096 tokens, batch 1, 3 turns`;

/** null: there is nothing to measure. */
function readOptions(): Options | null {
  const values = readFlags({
    model: { type: 'string', default: DEFAULT_MODEL },
    threads: { type: 'string', default: '2' },
    precision: { type: 'string', default: 'int8' },
    only: { type: 'string', multiple: true },
    depth: { type: 'string', multiple: true },
    batch: { type: 'string', multiple: true },
    rounds: { type: 'string', default: '15' },
    quick: { type: 'boolean', default: false },
  }, USAGE);
  if (values === null) return null;
  const { quick, only = [...PARTS], depth = quick ? ['4096'] : null, batch = quick ? ['1'] : ['1', '8'] } = values;
  return {
    model: values.model, threads: Number(values.threads), precision: values.precision === 'fp32' ? 'fp32' : 'int8',
    parts: PARTS.filter((part) => only.includes(part)), depths: (depth ?? DEPTHS).map(Number), verifyDepths: (depth ?? VERIFY_DEPTHS).map(Number),
    batches: batch.map(Number), rounds: quick ? 3 : Number(values.rounds),
  };
}

await main();
