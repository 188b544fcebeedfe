/**
 * Speed of the CUDA engine's bare steps (npm run bench:gpu): decode and prefill at several depths under each
 * attention policy, on the shape of Llama-3.1-8B with random weights unless a model is named, beside the ceilings
 * of the card measured in the same run. KV memory is filled first. Prints tables and, last, one JSON line.
 * Knows no scheduler. Without a device it says so and measures nothing.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type AttentionSettings, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { readJsonFile } from '../model/model-file-error.ts';
import { parseModelSpec, type ModelSpec } from '../model/spec.ts';
import { Weights } from '../model/weights.ts';
import { whyNoCuda } from './availability.ts';
import { CudaEngine, type CudaPrecision } from './cuda-engine.ts';
import { measureCeilings, type Ceilings } from './ceilings.ts';
import type { KvFormat } from './kv-memory.ts';
import { RandomWeights, randomNumbers } from './random-weights.ts';

/** config.json of Llama-3.1-8B, as far as speed depends on it. */
const LLAMA_8B = {
  model_type: 'llama', hidden_act: 'silu', num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 8, hidden_size: 4096,
  intermediate_size: 14336, vocab_size: 128256, max_position_embeddings: 262144, rms_norm_eps: 1e-5, rope_theta: 500_000,
};
const PREFILL_ROWS = 8192;

const dense: AttentionSettings = {
  attention: 'dense', tokenBudget: 4096, sinkTokens: 128, localTokens: 1024, streamingHeads: 0,
  selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};
const lserve: AttentionSettings = { ...dense, attention: 'lserve' };
const half: AttentionSettings = { ...lserve, streamingHeads: 0.5 };

interface Options {
  readonly model: string;
  readonly precision: CudaPrecision;
  readonly kvFormat: KvFormat;
  /** As --cuda-kernels fast. */
  readonly fast: boolean;
  readonly depths: readonly number[];
  readonly prefills: readonly number[];
  readonly batches: readonly (readonly [batch: number, depth: number])[];
  readonly repeats: number;
}

interface Figure {
  readonly row: string;
  readonly depth: number;
  readonly batch: number;
  readonly milliseconds: number;
  readonly deviceMilliseconds: number;
  /** Of the decode steps measured, which the others leave out. */
  readonly slowestMilliseconds?: number;
  /** Bytes that decode must read over the copy rate; operations of prefill over the product rate. */
  readonly floorMilliseconds: number;
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2));
  const libraries = { folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env };
  const reason = whyNoCuda(libraries);
  if (reason !== null) {
    print(`nothing measured: ${reason}`);
    print(JSON.stringify({ skipped: reason }));
    return;
  }
  const began = performance.now();
  const { engine, spec } = await loadEngine(options, libraries);
  engine.device.synchronize();
  const type = options.precision === 'bf16' ? 'bf16' : 'fp16';
  const startSeconds = (performance.now() - began) / 1000;
  engine.kv.occupy(Array(engine.pages).keys(), randomNumbers(type, 1 << 24));
  const ceilings = measureCeilings(engine.device, engine.memory, type);
  print(`${engine.device.properties.name}, ${options.precision}${options.fast ? ', fast kernels' : ''}${options.kvFormat === 'element' ? '' : `, KV memory in ${options.kvFormat}`}, ${engine.pages * PAGE_TOKENS} tokens of KV memory; weights resident after ${startSeconds.toFixed(1)} s`);
  print(`ceilings: copy ${(ceilings.copyBytesPerSecond / 1e12).toFixed(2)} TB/s, products ${(ceilings.flopsPerSecond / 1e12).toFixed(0)} TFLOP/s`);
  const bench = new Bench(engine, spec, { ceilings, repeats: options.repeats });
  const figures = [...await bench.decodeTable(options.depths), ...await bench.batchTable(options.batches), ...await bench.prefillTable(options.prefills)];
  await engine.close();
  print(JSON.stringify({ device: engine.device.properties.name, precision: options.precision, kvFormat: options.kvFormat, fast: options.fast, startSeconds, ceilings, figures }));
}

class Bench {
  readonly #engine: CudaEngine;
  readonly #spec: ModelSpec;
  readonly #ceilings: Ceilings;
  readonly #repeats: number;

  constructor(engine: CudaEngine, spec: ModelSpec, { ceilings, repeats }: { ceilings: Ceilings; repeats: number }) {
    this.#engine = engine;
    this.#spec = spec;
    this.#ceilings = ceilings;
    this.#repeats = repeats;
  }

  async decodeTable(depths: readonly number[]): Promise<Figure[]> {
    const rows: [string, AttentionSettings][] = [['dense', dense], ['lserve 4096', lserve], ['lserve 4096, half streaming', half]];
    print('\ndecode, batch 1: ms a token (device alone; share of the byte floor)');
    return this.#table(rows, depths, (settings, depth) => this.#decode(settings, depth, 1), decodeCell);
  }

  async batchTable(batches: Options['batches']): Promise<Figure[]> {
    print('\ndecode of batches, dense: ms a step (device alone; share of the byte floor)');
    const figures: Figure[] = [];
    for (const [batch, depth] of batches) {
      if (batch * (depth + PAGE_TOKENS) > this.#engine.pages * PAGE_TOKENS) {
        print(`${batch} x ${depth}: does not fit`);
        continue;
      }
      const figure = { row: 'dense', ...await this.#decode(dense, depth, batch) };
      print(`${`${batch} x ${depth}`.padEnd(30)}${decodeCell(figure).padStart(26)}`);
      figures.push(figure);
    }
    return figures;
  }

  async prefillTable(depths: readonly number[]): Promise<Figure[]> {
    const rows: [string, AttentionSettings][] = [['dense', dense], ['lserve 4096, half streaming', half]];
    print(`\nprefill of one text, steps of ${PREFILL_ROWS} tokens: s (tokens/s; share of the product rate)`);
    return this.#table(rows, depths, (settings, depth) => this.#prefill(settings, depth), ({ milliseconds, depth, floorMilliseconds }) =>
      `${(milliseconds / 1000).toFixed(2)} (${(1000 * depth / milliseconds).toFixed(0)}; ${percent(floorMilliseconds / milliseconds)})`);
  }

  async #table(
    rows: readonly (readonly [string, AttentionSettings])[], depths: readonly number[],
    measure: (settings: AttentionSettings, depth: number) => Promise<Omit<Figure, 'row'>>, cell: (figure: Figure) => string,
  ): Promise<Figure[]> {
    const figures: Figure[] = [];
    print(['', ...depths.map(String)].map((text, i) => (i === 0 ? text.padEnd(30) : text.padStart(26))).join(''));
    for (const [row, settings] of rows) {
      const cells: string[] = [];
      for (const depth of depths) {
        const figure = { row, ...await measure(settings, depth) };
        figures.push(figure);
        cells.push(cell(figure).padStart(26));
      }
      print(row.padEnd(30) + cells.join(''));
    }
    return figures;
  }

  async #decode(settings: AttentionSettings, depth: number, batch: number): Promise<Omit<Figure, 'row'>> {
    const engine = this.#engine;
    const policy = this.#policy(settings);
    const perSequence = Math.floor(engine.pages / batch);
    const tables = Array.from({ length: batch }, (_, b) => Int32Array.from({ length: perSequence }, (_, i) => (i * batch + b) % engine.pages));
    const times: { wall: number; device: number }[] = [];
    for (let step = -8; step < this.#repeats; step++) {
      const began = performance.now();
      await engine.run(tables.map((pageTable, b) => this.#chunk(policy, { pageTable, sequenceId: b, start: depth - this.#repeats + step, tokens: 1, phase: 'decode', headTemperature: 0 })));
      if (step >= 0) times.push({ wall: performance.now() - began, device: engine.deviceMilliseconds });
    }
    tables.forEach((_, b) => { engine.forget(b); });
    const bytes = this.#weightBytes() + batch * this.#kvBytes(policy, tables[0]!, depth - 1);
    return {
      depth, batch, milliseconds: usual(times.map(({ wall }) => wall)), deviceMilliseconds: usual(times.map(({ device }) => device)),
      slowestMilliseconds: Math.max(...times.map(({ wall }) => wall)),
      floorMilliseconds: 1000 * bytes / this.#ceilings.copyBytesPerSecond,
    };
  }

  /** Steps as the scheduler would make them: whole spans, one step's tokens at a time. */
  async #prefill(settings: AttentionSettings, depth: number): Promise<Omit<Figure, 'row'>> {
    const policy = this.#policy(settings);
    const pageTable = Int32Array.from({ length: Math.ceil(depth / PAGE_TOKENS) }, (_, i) => i);
    const began = performance.now();
    let device = 0;
    for (let start = 0; start < depth; start += PREFILL_ROWS) {
      const end = Math.min(depth, start + PREFILL_ROWS);
      const chunks: Chunk[] = [];
      for (let at = start; at < end;) {
        const tokens = Math.min(end - at, policy.maxChunkTokens(at));
        chunks.push(this.#chunk(policy, { pageTable, sequenceId: 1, start: at, tokens, phase: 'prefill', logits: at + tokens === depth ? 'last' : 'none' }));
        at += tokens;
      }
      await this.#engine.run(chunks);
      device += this.#engine.deviceMilliseconds;
    }
    this.#engine.forget(1);
    const milliseconds = performance.now() - began;
    return { depth, batch: 1, milliseconds, deviceMilliseconds: device, floorMilliseconds: 1000 * this.#denseFlops(depth) / this.#ceilings.flopsPerSecond };
  }

  #chunk(policy: PageListPolicy, of: Pick<Chunk, 'pageTable' | 'sequenceId' | 'start' | 'phase' | 'headTemperature'> & { tokens: number; logits?: Chunk['logits'] }): Chunk {
    const tokens = Int32Array.from({ length: of.tokens }, (_, i) => (i * 31 + of.start * 7) % this.#spec.vocab);
    return { logits: 'last', ...of, tokens, attention: policy.plan(of.pageTable, of.start, of.tokens, of.phase), promptTokens: of.start + of.tokens };
  }

  /** Every second head streams: which ones does not matter for speed. */
  #policy(settings: AttentionSettings): PageListPolicy {
    const { layers, kvHeads } = this.#spec;
    const numHeads = layers * kvHeads;
    return createPageListPolicy(settings, { ...this.#spec, headOrder: Int32Array.from({ length: numHeads }, (_, i) => (i * 2) % numHeads + (i * 2 >= numHeads ? 1 : 0)) });
  }

  /** All but the embedding table, of which a row is read. */
  #weightBytes(): number {
    const { layers, hidden, inner, heads, kvHeads, headDim, vocab } = this.#spec;
    return 2 * (layers * hidden * ((2 * heads + 2 * kvHeads) * headDim + 3 * inner) + vocab * hidden);
  }

  /** What one decode step reads of one sequence, by its lists; statistics when it picks, shared among the steps of a selection. */
  #kvBytes(policy: PageListPolicy, pageTable: Int32Array, start: number): number {
    const { classes, classOf } = policy.plan(pageTable, start, 1, 'decode');
    const { headDim } = this.#spec;
    const tokenBytes = this.#engine.kv.format === 'element' ? headDim * 4 : 2 * (headDim + 4);
    let bytes = 0;
    for (const one of classOf) {
      const { tokens, pick, candidates } = classes[one]!;
      bytes += tokens * tokenBytes + (pick > 0 ? candidates.length * 4 * 2 * headDim * 2 / lserve.selectionInterval : 0);
    }
    return bytes;
  }

  #denseFlops(tokens: number): number {
    const { layers, heads, headDim, vocab, hidden } = this.#spec;
    return tokens * (this.#weightBytes() - 2 * vocab * hidden) + 2 * tokens * tokens * layers * heads * headDim;
  }
}

async function loadEngine({ model, precision, kvFormat, fast, depths, prefills, batches }: Options, libraries: ConstructorParameters<typeof CudaEngine>[0]['libraries']) {
  const most = Math.max(...depths, ...prefills, ...batches.map(([batch, depth]) => batch * (depth + 2 * PAGE_TOKENS)));
  const rest = { headOrder: null, precision, kvFormat, pages: { atMost: Math.ceil(most / PAGE_TOKENS) + 1 }, stepTokens: PREFILL_ROWS, libraries, fast };
  if (model === '') {
    const spec = parseModelSpec(LLAMA_8B);
    return { spec, engine: new CudaEngine({ spec, weights: new RandomWeights(spec), ...rest }) };
  }
  const spec = parseModelSpec(await readJsonFile(join(model, 'config.json')));
  const weights = await Weights.open(model, spec);
  const engine = new CudaEngine({ spec, weights, ...rest });
  weights.close();
  return { spec, engine };
}

function decodeCell({ milliseconds, deviceMilliseconds, floorMilliseconds }: Figure): string {
  return `${milliseconds.toFixed(2)} (${deviceMilliseconds.toFixed(2)}; ${percent(floorMilliseconds / milliseconds)})`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

/** The mean, without the slowest one of many: steps that pick pages anew come now and then, and count; a pause of the host does not. */
function usual(values: readonly number[]): number {
  const counted = values.toSorted((a, b) => a - b).slice(0, Math.max(1, values.length - 1));
  return counted.reduce((a, b) => a + b, 0) / counted.length;
}

function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      model: { type: 'string', default: '' },
      precision: { type: 'string', default: 'fp16' },
      'kv-precision': { type: 'string', default: 'auto' },
      plain: { type: 'boolean', default: false },
      depths: { type: 'string', default: '1024,8192,16384,32768,131072,262144' },
      prefills: { type: 'string', default: '8192,32768,131072' },
      batches: { type: 'string', default: '8x8192,8x32768,16x8192,64x4096' },
      repeats: { type: 'string', default: '24' },
    },
  });
  const numbers = (text: string): number[] => (text === '' ? [] : text.split(',').map(Number));
  return {
    model: values.model, fast: !values.plain, precision: values.precision === 'bf16' || values.precision === 'fp8' ? values.precision : 'fp16',
    kvFormat: values['kv-precision'] === 'int8' || values['kv-precision'] === 'fp8' ? values['kv-precision'] : 'element', depths: numbers(values.depths), prefills: numbers(values.prefills),
    batches: values.batches === '' ? [] : values.batches.split(',').map((pair) => pair.split('x').map(Number) as [number, number]), repeats: Number(values.repeats),
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main();
