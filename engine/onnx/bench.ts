/**
 * Speed of the CPU engine's bare steps on a model's shape (npm run bench): decode and prefill at several
 * depths under each attention policy, in one process. KV memory is filled with noise first, since speed
 * does not depend on what it holds but on its being there. Rows of one table are measured in turns, so that
 * a noisy machine disturbs all alike. Prints tables and, last, one JSON line. Knows no scheduler.
 */
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type AttentionSettings, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { readHeadOrder } from '../model/head-file.ts';
import { readJsonFile } from '../model/model-file-error.ts';
import { parseModelSpec } from '../model/spec.ts';
import { Weights } from '../model/weights.ts';
import { createOnnxEngine, type OnnxEngine } from './onnx-engine.ts';

interface Options {
  readonly model: string;
  readonly threads: number;
  readonly precision: 'int8' | 'fp32';
  readonly depths: readonly number[];
  readonly batches: readonly number[];
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

const base: AttentionSettings = {
  attention: 'dense', tokenBudget: 2048, sinkTokens: 128, localTokens: 1024, streamingHeads: 0,
  selectionInterval: 4, renumberPositions: false, sparsePrefill: true,
};
const lserve: AttentionSettings = { ...base, attention: 'lserve' };

function decodeRows(hasHeads: boolean): Row[] {
  const half: Row = { name: 'lserve 2048, half streaming', settings: { ...lserve, streamingHeads: 0.5 }, chunkTokens: 1 };
  return [
    { name: 'dense', settings: base, chunkTokens: 1 },
    { name: 'lserve 2048', settings: lserve, chunkTokens: 1 },
    { name: 'lserve 2048, selection every step', settings: { ...lserve, selectionInterval: 1 }, chunkTokens: 1 },
    ...(hasHeads ? [half] : []),
    { name: 'streaming 128 + 1024', settings: { ...base, attention: 'streaming' }, chunkTokens: 1 },
  ];
}

function prefillRows(hasHeads: boolean): Row[] {
  const half: Row[] = [
    { name: 'half streaming, rest dense', settings: { ...lserve, streamingHeads: 0.5, sparsePrefill: false }, chunkTokens: 512 },
    { name: 'lserve 2048, half streaming', settings: { ...lserve, streamingHeads: 0.5 }, chunkTokens: 128 },
  ];
  return [
    { name: 'dense', settings: base, chunkTokens: 512 },
    { name: 'lserve 2048', settings: lserve, chunkTokens: 128 },
    ...(hasHeads ? half : []),
    { name: 'streaming 128 + 1024', settings: { ...base, attention: 'streaming' }, chunkTokens: 128 },
  ];
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const { engine, policyOf, hasHeads } = await load(options);
  print(`${cpus()[0]?.model ?? 'unknown CPU'}, ${options.threads} threads, ${options.model}, ${options.precision}`);
  const figures: Figure[] = [];
  for (const batch of options.batches) {
    print(`\ndecode, batch ${batch}: ms per step, mean (median) of ${options.repeats}`);
    figures.push(...await table(decodeRows(hasHeads), options, (row, depth) => decodeSteps({ engine, policy: policyOf(row), row, depth, batch, repeats: options.repeats })));
  }
  print(`\nprefill of one text: tokens/s by the median of ${options.repeats} chunks`);
  figures.push(...await table(prefillRows(hasHeads), options, (row, depth) => prefillChunks({ engine, policy: policyOf(row), row, depth, batch: 1, repeats: options.repeats })));
  await engine.close();
  print(JSON.stringify({ cpu: cpus()[0]?.model, threads: options.threads, precision: options.precision, figures }));
}

async function load({ model, threads, precision, depths, batches }: Options) {
  const spec = parseModelSpec(await readJsonFile(join(model, 'config.json')));
  const headOrder = await readHeadOrder(model, '', spec);
  const weights = await Weights.open(model, spec);
  const longest = Math.max(...depths) + 1024;
  const pages = Math.ceil(longest / PAGE_TOKENS) * Math.max(...batches);
  const engine = await createOnnxEngine({ spec, weights, precision, threads, pages, headOrder });
  weights.close();
  for (let page = 0; page < pages; page++) engine.memory.poison(page, 1 + (page % 50));
  const policyOf = (row: Row): PageListPolicy => createPageListPolicy(row.settings, { ...spec, headOrder });
  return { engine, policyOf, hasHeads: headOrder !== null };
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
    const chunks = tables.map((pageTable, b) => chunkAt({ engine, policy, pageTable, sequenceId: b, start: depth - repeats - 8 * b + step, tokens: 1 }));
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
    const chunk = chunkAt({ engine, policy, pageTable, sequenceId: 0, start: depth - row.chunkTokens, tokens: row.chunkTokens });
    const began = performance.now();
    await engine.run([chunk]);
    if (repeat >= 0) times.push(performance.now() - began);
  }
  return figureOf(row, depth, 1, times);
}

function chunkAt({ engine, policy, pageTable, sequenceId, start, tokens }: {
  engine: OnnxEngine; policy: PageListPolicy; pageTable: Int32Array; sequenceId: number; start: number; tokens: number;
}): Chunk {
  const phase = tokens === 1 ? 'decode' : 'prefill';
  const attention = policy.plan(pageTable, start, tokens, phase);
  const ids = Int32Array.from({ length: tokens }, (_, i) => (i * 31 + start) % engine.spec.vocab);
  return { sequenceId, phase, tokens: ids, start, pageTable, attention, promptTokens: start + tokens, logits: tokens === 1 ? 'last' : 'none' };
}

/** Pages of a sequence are scattered over memory, as after long service. [batch] of [pages per sequence] */
function pageTables(engine: OnnxEngine, batch: number): Int32Array[] {
  const perSequence = Math.floor(engine.pages / batch);
  return Array.from({ length: batch }, (_, b) => Int32Array.from({ length: perSequence }, (_, i) => (i * batch + b) % engine.pages));
}

function figureOf({ name, chunkTokens }: Row, depth: number, batch: number, times: readonly number[]): Figure {
  const sorted = times.toSorted((a, b) => a - b);
  const meanMs = times.reduce((sum, time) => sum + time, 0) / times.length;
  return { row: name, depth, batch, chunkTokens, medianMs: sorted[Math.floor(sorted.length / 2)]!, meanMs, minMs: sorted[0]! };
}

function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      model: { type: 'string', default: join(import.meta.dirname, '../../models/longspan-16m') },
      threads: { type: 'string', default: '2' },
      precision: { type: 'string', default: 'int8' },
      depths: { type: 'string', default: '4096,16384,65536' },
      batches: { type: 'string', default: '1,8' },
      repeats: { type: 'string', default: '24' },
    },
  });
  const numbers = (text: string): number[] => text.split(',').map(Number);
  return {
    model: values.model, threads: Number(values.threads), precision: values.precision === 'fp32' ? 'fp32' : 'int8',
    depths: numbers(values.depths), batches: numbers(values.batches), repeats: Number(values.repeats),
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main();
