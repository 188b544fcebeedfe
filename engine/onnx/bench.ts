/**
 * Speed of the CPU engine's bare steps on a model's shape (npm run bench): decode and prefill at several
 * depths under each attention policy, in one process. KV memory is filled with noise first, since speed
 * does not depend on what it holds but on its being there. Rows of one table are measured in turns, so that
 * a noisy machine disturbs all alike. Prints tables and, last, one JSON line. Knows no scheduler.
 */
import { cpus } from 'node:os';
import type { AttentionSettings, PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import {
  chunkAt, DEFAULT_MODEL, denseSettings, loadEngine, lserveSettings, median, pageTables, print, seldomSelecting, streamingSettings, type BenchModel,
} from './bench-engine.ts';
import { readFlags } from './bench-flags.ts';
import type { OnnxEngine } from './onnx-engine.ts';

interface Options extends BenchModel {
  readonly repeats: number;
}

interface Row {
  readonly name: string;
  readonly settings: AttentionSettings;
  /** Tokens of a prefill chunk; 1 for decode. */
  readonly chunkTokens: number;
}

interface Figure {
  readonly row: string;
  readonly depth: number;
  readonly batch: number;
  readonly chunkTokens: number;
  readonly medianMs: number;
  readonly meanMs: number;
  readonly minMs: number;
}

function decodeRows(hasHeads: boolean): Row[] {
  const half: Row = { name: 'lserve 2048, half streaming', settings: { ...lserveSettings, streamingHeads: 0.5 }, chunkTokens: 1 };
  return [
    { name: 'dense', settings: denseSettings, chunkTokens: 1 },
    { name: 'lserve 2048', settings: lserveSettings, chunkTokens: 1 },
    { name: 'lserve 2048, selecting seldom', settings: seldomSelecting, chunkTokens: 1 },
    ...(hasHeads ? [half] : []),
    { name: 'streaming 128 + 1024', settings: streamingSettings, chunkTokens: 1 },
  ];
}

function prefillRows(hasHeads: boolean): Row[] {
  const half: Row[] = [
    { name: 'half streaming, rest dense', settings: { ...lserveSettings, streamingHeads: 0.5, sparsePrefill: false }, chunkTokens: 512 },
    { name: 'lserve 2048, half streaming', settings: { ...lserveSettings, streamingHeads: 0.5 }, chunkTokens: 128 },
  ];
  return [
    { name: 'dense', settings: denseSettings, chunkTokens: 512 },
    { name: 'lserve 2048', settings: lserveSettings, chunkTokens: 128 },
    ...(hasHeads ? half : []),
    { name: 'streaming 128 + 1024', settings: streamingSettings, chunkTokens: 128 },
  ];
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options === null) return;
  const { engine, policyOf, hasHeads } = await loadEngine(options);
  print(`${cpus()[0]?.model ?? 'unknown CPU'}, ${options.threads} threads, ${options.model}, ${options.precision}`);
  const figures: Figure[] = [];
  for (const batch of options.batches) {
    print(`\ndecode, batch ${batch}: ms per step, mean (median) of ${options.repeats}`);
    figures.push(...await table(decodeRows(hasHeads), options, (row, depth) => decodeSteps({ engine, policy: policyOf(row.settings), row, depth, batch, repeats: options.repeats })));
  }
  print(`\nprefill of one text: tokens/s by the median of ${options.repeats} chunks`);
  figures.push(...await table(prefillRows(hasHeads), options, (row, depth) => prefillChunks({ engine, policy: policyOf(row.settings), row, depth, batch: 1, repeats: options.repeats })));
  await engine.close();
  print(JSON.stringify({ cpu: cpus()[0]?.model, threads: options.threads, precision: options.precision, figures }));
}

async function table(rows: readonly Row[], { depths }: Options, measure: (row: Row, depth: number) => Promise<Figure>): Promise<Figure[]> {
  const figures: Figure[] = [];
  print(['', ...depths.map(String)].map((text, i) => (i === 0 ? text.padEnd(36) : text.padStart(16))).join(''));
  for (const row of rows) {
    const cells: string[] = [];
    for (const depth of depths) {
      const figure = await measure(row, depth);
      figures.push(figure);
      cells.push(row.chunkTokens === 1 ? `${figure.meanMs.toFixed(2)} (${figure.medianMs.toFixed(2)})` : (1000 * row.chunkTokens / figure.medianMs).toFixed(0));
    }
    print(row.name.padEnd(36) + cells.map((cell) => cell.padStart(16)).join(''));
  }
  return figures;
}

interface Measurement {
  readonly engine: OnnxEngine;
  readonly policy: PageListPolicy;
  readonly row: Row;
  readonly depth: number;
  readonly batch: number;
  readonly repeats: number;
}

/** Sequences of unequal lengths, as in service; warm-up steps pick the first pages. */
async function decodeSteps({ engine, policy, row, depth, batch, repeats }: Measurement): Promise<Figure> {
  const tables = pageTables(engine, batch);
  const times: number[] = [];
  for (let step = -4; step < repeats; step++) {
    const chunks = tables.map((pageTable, b) => chunkAt({ engine, policy, pageTable, sequenceId: b, start: depth - repeats - 8 * b + step, tokens: 1, phase: 'decode' }));
    const began = performance.now();
    await engine.run(chunks);
    if (step >= 0) times.push(performance.now() - began);
  }
  tables.forEach((_, b) => { engine.forget(b); });
  return figureOf(row, depth, batch, times);
}

async function prefillChunks({ engine, policy, row, depth, repeats }: Measurement): Promise<Figure> {
  const pageTable = pageTables(engine, 1)[0]!;
  const times: number[] = [];
  for (let repeat = -1; repeat < repeats; repeat++) {
    const chunk = chunkAt({ engine, policy, pageTable, sequenceId: 0, start: depth - row.chunkTokens, tokens: row.chunkTokens, phase: 'prefill' });
    const began = performance.now();
    await engine.run([chunk]);
    if (repeat >= 0) times.push(performance.now() - began);
  }
  return figureOf(row, depth, 1, times);
}

function figureOf({ name, chunkTokens }: Row, depth: number, batch: number, times: readonly number[]): Figure {
  const meanMs = times.reduce((sum, time) => sum + time, 0) / times.length;
  return { row: name, depth, batch, chunkTokens, medianMs: median(times), meanMs, minMs: Math.min(...times) };
}

const USAGE = `npm run bench -- [options]
  --model DIR      checkpoint                    the bundled model
  --threads N      of the engine                 2
  --precision P    int8 or fp32                  int8
  --depths N,N     tokens of the text            4096,16384,65536
  --batches N,N    sequences that decode         1,8
  --repeats N      measurements of each cell     24`;

/** null: there is nothing to measure. */
function readOptions(): Options | null {
  const values = readFlags({
    model: { type: 'string', default: DEFAULT_MODEL },
    threads: { type: 'string', default: '2' },
    precision: { type: 'string', default: 'int8' },
    depths: { type: 'string', default: '4096,16384,65536' },
    batches: { type: 'string', default: '1,8' },
    repeats: { type: 'string', default: '24' },
  }, USAGE);
  if (values === null) return null;
  const numbers = (text: string): number[] => text.split(',').map(Number);
  return {
    model: values.model, threads: Number(values.threads), precision: values.precision === 'fp32' ? 'fp32' : 'int8',
    depths: numbers(values.depths), batches: numbers(values.batches), repeats: Number(values.repeats),
  };
}

await main();
