/**
 * Speed of single kernels (npm run bench:kernels) on the shape of Llama-3.1-8B: matrix products, attention over
 * page lists in decode and prefill, scoring and picking pages, heads of rows of logits, linear layers of few rows. Attention is first checked against float64 on
 * random inputs with a poisoned output. Prints tables and, last, one JSON line. Without a device it says so.
 */
import { PAGE_TOKENS, type AttentionPlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { bfloat16ToFloat32 } from '../model/float-convert.ts';
import { parseModelSpec, type ModelSpec } from '../model/spec.ts';
import { AttentionLaunches } from './attention-launches.ts';
import { whyNoCuda } from './availability.ts';
import { linearFigures } from './bench-linears.ts';
import { measureCeilings } from './ceilings.ts';
import { Compiler } from './compiler.ts';
import { activationFactors, type CudaValue, type OpsParts } from './cuda-values.ts';
import { Device } from './device.ts';
import { DeviceMemory, type DeviceBuffer } from './device-memory.ts';
import type { DeviceWeights } from './device-weights.ts';
import { CublasLt } from './ffi/cublas-lt.ts';
import { Nvrtc } from './ffi/nvrtc.ts';
import { Kernels } from './kernels.ts';
import { KvMemory } from './kv-memory.ts';
import { LinearLayers } from './linear-layers.ts';
import { MatrixProducts } from './matrix-products.ts';
import { randomNumbers } from './random-weights.ts';
import { RowHeads } from './row-heads.ts';
import type { MovedEntry } from './moved-pages.ts';
import { buildRunTables, type RunTables } from './run-tables.ts';
import { Workspace } from './workspace.ts';

const libraries = { folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env };
const spec: ModelSpec = parseModelSpec({
  model_type: 'llama', hidden_act: 'silu', num_hidden_layers: 1, num_attention_heads: 32, num_key_value_heads: 8, hidden_size: 4096,
  intermediate_size: 14336, vocab_size: 128256, max_position_embeddings: 262144, rms_norm_eps: 1e-5, rope_theta: 500_000,
});
const PAGES = 8 * 32768 / PAGE_TOKENS + 256;
const HOPPER_ROWS = 128;
const CHECKED_ROWS = 6;
const REPEATS = 20;
const WEIGHT_COPIES = 6;
const MAX_PICK = 64;
const BLOCK_BYTES = 64 << 20;

interface Figure {
  readonly kernel: string;
  readonly shape: string;
  readonly milliseconds: number;
  readonly rate: number;
  readonly unit: 'GB/s' | 'TFLOP/s';
  /** Against float64, of linear layers against the plain kernels; null where nothing was checked. */
  readonly error: number | null;
}

interface Case {
  readonly name: string;
  readonly chunks: readonly { readonly start: number; readonly tokens: number }[];
  /** Pages of each list that are picked instead of read; 0 reads all. */
  readonly pick: number;
}

const cases: readonly Case[] = [
  { name: 'decode 1 x 8K', chunks: [{ start: 8191, tokens: 1 }], pick: 0 },
  { name: 'decode 1 x 32K', chunks: [{ start: 32767, tokens: 1 }], pick: 0 },
  { name: 'decode 1 x 128K', chunks: [{ start: 131071, tokens: 1 }], pick: 0 },
  { name: 'decode 8 x 32K', chunks: Array.from({ length: 8 }, () => ({ start: 32767, tokens: 1 })), pick: 0 },
  { name: 'verify 1 x 32K, 8 tokens', chunks: [{ start: 32760, tokens: 8 }], pick: 0 },
  { name: 'decode 1 x 128K, 60 picked', chunks: [{ start: 131071, tokens: 1 }], pick: 60 },
  { name: 'prefill 8K', chunks: [{ start: 0, tokens: 8192 }], pick: 0 },
  { name: 'prefill 8K behind 24K', chunks: [{ start: 24576, tokens: 8192 }], pick: 0 },
];

class KernelBench {
  readonly device = Device.open(libraries);
  readonly memory = new DeviceMemory(this.device);
  readonly #products: MatrixProducts;
  readonly #kv: KvMemory;
  readonly #parts: OpsParts;
  readonly #qkv: DeviceBuffer;
  readonly #selection: DeviceBuffer;

  constructor() {
    const compiler = new Compiler(Nvrtc.open(libraries), { architecture: this.device.properties.architecture });
    const kernels = new Kernels(this.device, compiler, { type: 'bf16', headDim: spec.headDim, hopper: this.device.properties.capability === 90, fast: false, fp8: false, sm90: false, kv: 'element' });
    const workspace = this.memory.allocate(MatrixProducts.workspaceBytes, 'the workspace of products');
    this.#products = new MatrixProducts(CublasLt.open(libraries), { device: this.device, workspace, type: 'bf16' });
    this.#kv = new KvMemory(spec, this.memory, { pages: PAGES, ids: PAGES, widePages: 0 });
    this.#kv.occupy(Array(PAGES).keys(), randomNumbers('bf16', BLOCK_BYTES / 2, 0));
    this.#kv.pageRows.bring();
    this.#qkv = this.memory.allocate(8192 * width() * 2, 'queries, keys and values');
    this.#selection = this.memory.allocate(16 * spec.heads * MAX_PICK * 4, 'picked pages');
    const space = new Workspace(this.device, this.memory);
    this.#parts = {
      spec, kernels, factors: activationFactors.bf16, kv: this.#kv, workspace: space,
      linears: new LinearLayers({ kernels, products: this.#products, workspace: space, fast: false, multiprocessors: this.device.properties.multiprocessors, normEps: spec.normEps }),
      maxPick: () => MAX_PICK, multiprocessors: this.device.properties.multiprocessors, sharedBytes: this.device.properties.sharedBytes, fast: false, weights: noWeights(),
    };
  }

  products(): Figure[] {
    const shapes: [string, number, number][] = [['qkv', 6144, 4096], ['o', 4096, 4096], ['gate+up', 28672, 4096], ['down', 4096, 14336], ['head', 128256, 4096]];
    return shapes.flatMap(([name, columns, inner]) => [1, 8, 64, 512, 8192].filter((rows) => rows < 8192 || columns < 100_000).map((rows) => this.#product(name, { rows, columns, inner })));
  }

  attention(): Figure[] {
    return cases.flatMap((one) => this.#attention(one));
  }

  /** With few rows, as decode has them. */
  linears(): Figure[] {
    return linearFigures({ device: this.device, memory: this.memory, compiler: new Compiler(Nvrtc.open(libraries), { architecture: this.device.properties.architecture }), cublasLt: CublasLt.open(libraries) });
  }

  /** With the copies of temperatures and heads. */
  heads(): Figure[] {
    const { vocab } = spec;
    return [1, 8, 64].map((rows) => {
      const logits = this.memory.allocate(rows * vocab * 4, 'logits');
      this.memory.repeat(logits, Float32Array.from({ length: 1 << 20 }, (_, i) => 3 * Math.sin(i * i)));
      const heads = new RowHeads({ device: this.device, memory: this.memory, workspace: this.#parts.workspace, kernels: this.#parts.kernels, vocab, stride: vocab });
      const asks = Array.from({ length: rows }, () => ({ temperature: 0.8, target: -1 }));
      const figure = this.#figure('heads of rows', `${rows} x ${vocab}`, { bytes: rows * vocab * 4, flops: 0 }, () => {
        heads.begin(rows);
        heads.make(logits.address, asks);
      }, null);
      this.memory.free(logits);
      return figure;
    });
  }

  close(): void {
    this.#products.close();
    this.memory.close();
    this.device.close();
  }

  #product(name: string, { rows, columns, inner }: { rows: number; columns: number; inner: number }): Figure {
    const copies = columns > 100_000 ? 1 : WEIGHT_COPIES;
    const weights = this.#random(copies * columns * inner * 2);
    const [x, y] = [this.#random(rows * inner * 2), this.#random(rows * columns * 2)];
    const addresses = Array.from({ length: copies }, (_, i) => weights.address + BigInt(i * columns * inner * 2));
    for (const address of addresses) this.#products.register(address, columns, inner);
    const issue = (weight: bigint): void => { this.#products.multiply({ x: x.address, rows, weight, columns, inner, bias: null, y: y.address, output: 'element' }); };
    issue(addresses[0]!);
    const milliseconds = median(Array.from({ length: REPEATS }, () => this.device.time(() => { for (const weight of addresses) issue(weight); }))) / copies;
    this.#products.forgetWeights();
    for (const buffer of [weights, x, y]) this.memory.free(buffer);
    const bytes = 2 * (columns * inner + rows * (inner + columns));
    const rate = rows >= 512 ? 2 * rows * columns * inner / milliseconds / 1e9 : bytes / milliseconds / 1e6;
    return { kernel: `product ${name}`, shape: `${rows} rows`, milliseconds, rate, unit: rows >= 512 ? 'TFLOP/s' : 'GB/s', error: null };
  }

  #attention({ name, chunks, pick }: Case): Figure[] {
    const places = chunks.map((of, i) => ({ chunk: chunkOf(of, i, chunks.length, pick), slot: pick > 0 ? i : -1, fresh: pick > 0, table: null, moved: (_: Chunk, { page }: MovedEntry) => page }));
    const tables = buildRunTables(places, {
      layers: 1, kvHeads: spec.kvHeads, group: spec.heads / spec.kvHeads, pairs: spec.headDim / 2, hasWindows: false,
      hopperRows: this.#parts.kernels.has('attend_hopper') ? HOPPER_ROWS : null, hopperScores: this.#parts.kernels.has('score_hopper'), widens: false, frequencies: null,
    }, { firstEntry: 0, moves: [] });
    const ops = this.#ops(tables);
    const q: CudaValue = { address: this.#qkv.address, stride: width(), rows: 'all', headNorm: 0n, turned: true, factor: 1, norm: 0n, pending: null };
    this.#fill(this.#qkv);
    const figures: Figure[] = [];
    if (pick > 0) {
      const scored = places.reduce((sum, { chunk }) => sum + chunk.attention.classes[0]!.candidates.length, 0) * spec.kvHeads * 8 * spec.headDim * 2;
      figures.push(this.#figure('score and pick', name, { bytes: scored, flops: 0 }, () => { ops.select(0, q); }, null));
    }
    const out = ops.read(0, q).address;
    const rows = tables.sizes.rows;
    this.memory.poison({ address: out, bytes: rows * spec.heads * spec.headDim * 2 });
    ops.read(0, q);
    const error = pick > 0 ? null : this.#check(places.map(({ chunk }) => chunk), out);
    figures.push(this.#figure('attention', name, cost(chunks, pick), () => { ops.read(0, q); }, error));
    return figures;
  }

  #figure(kernel: string, shape: string, { bytes, flops }: { bytes: number; flops: number }, issue: () => void, error: number | null): Figure {
    issue();
    const graph = this.device.capture(() => { for (let i = 0; i < 4; i++) issue(); });
    graph.launch();
    const milliseconds = median(Array.from({ length: REPEATS }, () => this.device.time(() => { graph.launch(); }))) / 4;
    graph.free();
    const isArithmetic = flops / bytes > 300;
    return { kernel, shape, milliseconds, rate: isArithmetic ? flops / milliseconds / 1e9 : bytes / milliseconds / 1e6, unit: isArithmetic ? 'TFLOP/s' : 'GB/s', error };
  }

  /** Largest relative error of some rows, each of one head, against float64. Every element must have been written. */
  #check(chunks: readonly Chunk[], out: bigint): number {
    const rows = chunks.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const heads = spec.heads;
    const got = this.#read(out, rows * heads * spec.headDim);
    if (got.some(Number.isNaN)) throw new Error('attention left elements unwritten');
    let worst = 0;
    for (let i = 0; i < CHECKED_ROWS; i++) {
      const index = Math.floor(((i + 1) * chunks.length) / CHECKED_ROWS) % chunks.length;
      const chunk = chunks[index]!;
      const token = Math.floor((i * 7919) % chunk.tokens.length);
      const row = chunks.slice(0, index).reduce((sum, { tokens }) => sum + tokens.length, token);
      const head = (i * 5) % heads;
      const wanted = this.#attendOne(chunk, chunk.start + token, row, head);
      const at = (row * heads + head) * spec.headDim;
      worst = Math.max(worst, relativeError(got.subarray(at, at + spec.headDim), wanted));
    }
    return worst;
  }

  /** softmax(q.k / sqrt(D)) over positions 0..position of the chunk's pages, applied to the values. [headDim] */
  #attendOne({ pageTable }: Chunk, position: number, row: number, head: number): Float64Array {
    const { headDim, heads, kvHeads } = spec;
    const kvHead = Math.floor(head / (heads / kvHeads));
    const q = this.#read(this.#qkv.address + BigInt((row * width() + head * headDim) * 2), headDim);
    const sums = new Float64Array(headDim);
    let [highest, total] = [-Infinity, 0];
    for (let page = 0; page * PAGE_TOKENS <= position; page++) {
      const at = BigInt(this.#kv.pageRows.of(pageTable[page]!, kvHead) * PAGE_TOKENS * headDim * 2);
      const [keys, values] = [this.#read(this.#kv.keys + at, PAGE_TOKENS * headDim), this.#read(this.#kv.values + at, PAGE_TOKENS * headDim)];
      for (let token = 0; token < PAGE_TOKENS && page * PAGE_TOKENS + token <= position; token++) {
        let score = 0;
        for (let c = 0; c < headDim; c++) score += q[c]! * keys[placeOf(token, c)]!;
        score /= Math.sqrt(headDim);
        const rescale = Math.exp(Math.min(0, highest - score));
        if (score > highest) {
          for (let c = 0; c < headDim; c++) sums[c]! *= rescale;
          total *= rescale;
          highest = score;
        }
        const weight = Math.exp(score - highest);
        total += weight;
        for (let c = 0; c < headDim; c++) sums[c]! += weight * values[placeOf(token, c)]!;
      }
    }
    return sums.map((sum) => sum / total);
  }

  #ops(tables: RunTables): AttentionLaunches {
    const put = (data: ArrayBuffer | Int32Array): bigint => {
      const view = data instanceof ArrayBuffer ? new Uint8Array(data) : data;
      const buffer = this.memory.allocate(view.byteLength, 'tables');
      this.memory.write(buffer, view);
      return buffer.address;
    };
    return new AttentionLaunches(this.#parts, tables, { block: put(tables.block), entries: put(tables.entries), entryPositions: 0n, selection: this.#selection.address, ropeTable: 0n });
  }

  #random(bytes: number): DeviceBuffer {
    const buffer = this.memory.allocate(bytes, 'a matrix');
    this.#fill(buffer);
    return buffer;
  }

  /** Sizes of 1 to 2, of both signs: scores then spread over a few units, and keys do not all weigh alike. */
  #fill(buffer: DeviceBuffer): void {
    this.memory.repeat(buffer, randomNumbers('bf16', BLOCK_BYTES / 2, 0));
  }

  #read(address: bigint, elements: number): Float32Array {
    return bfloat16ToFloat32(new Uint16Array(this.memory.read({ address, bytes: 2 * elements })));
  }
}

/** Where kernels/CONTRACT.md puts channel c of a token, for heads of 128. */
function placeOf(token: number, c: number): number {
  return (Math.floor(c / 64) * 64 + token) * 64 + ((Math.floor(c / 8) % 8) ^ (token & 7)) * 8 + (c % 8);
}

function chunkOf({ start, tokens }: Case['chunks'][number], index: number, batch: number, pick: number): Chunk {
  const numPages = Math.ceil((start + tokens) / PAGE_TOKENS);
  const pageTable = Int32Array.from({ length: numPages }, (_, i) => (i * batch + index) % PAGES);
  const used = Math.ceil(start / PAGE_TOKENS);
  const fixed = pick === 0 ? pageTable.slice(0, used) : Int32Array.of(pageTable[0]!, ...pageTable.subarray(used - 3, used));
  const candidates = pick === 0 ? new Int32Array(0) : pageTable.slice(1, used - 3);
  const missing = used * PAGE_TOKENS - start;
  const attention: AttentionPlan = {
    classes: [{ fixed, positionDelta: null, candidates, pick, pickPer: 'kvHead', tokens: (fixed.length + pick) * PAGE_TOKENS - missing }],
    classOf: new Uint8Array(spec.kvHeads), selection: 'fresh',
  };
  return { phase: tokens <= 16 ? 'decode' : 'prefill', sequenceId: index, tokens: new Int32Array(tokens), start, pageTable, attention, promptTokens: start + tokens, logits: 'none' };
}

/** Bytes of keys and values that are read once, operations of both products. */
function cost(chunks: Case['chunks'], pick: number): { bytes: number; flops: number } {
  const { kvHeads, heads, headDim } = spec;
  let [bytes, flops] = [0, 0];
  for (const { start, tokens } of chunks) {
    const read = pick > 0 ? (4 + pick) * PAGE_TOKENS : start + tokens;
    bytes += read * kvHeads * headDim * 4;
    flops += 4 * heads * headDim * (tokens * read - (pick > 0 ? 0 : tokens * (tokens - 1) / 2));
  }
  return { bytes, flops };
}

function width(): number {
  return (spec.heads + 2 * spec.kvHeads) * spec.headDim;
}

function relativeError(got: Float32Array, wanted: Float64Array): number {
  let [difference, size] = [0, 0];
  wanted.forEach((value, i) => { difference += (got[i]! - value) ** 2; size += value ** 2; });
  return Math.sqrt(difference / size);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** Attention has none. */
function noWeights(): DeviceWeights {
  return { vector: () => 0n, linear: () => { throw new RangeError('attention reads no weights'); }, register: () => undefined } as unknown as DeviceWeights;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function main(): void {
  const reason = whyNoCuda(libraries);
  if (reason !== null) {
    print(`nothing measured: ${reason}`);
    print(JSON.stringify({ skipped: reason }));
    return;
  }
  const bench = new KernelBench();
  const ceilings = measureCeilings(bench.device, bench.memory, 'bf16');
  print(`${bench.device.properties.name}: copy ${(ceilings.copyBytesPerSecond / 1e12).toFixed(2)} TB/s, products ${(ceilings.flopsPerSecond / 1e12).toFixed(0)} TFLOP/s`);
  const figures = [...bench.attention(), ...bench.heads(), ...bench.linears(), ...bench.products()];
  print(`\n${'kernel'.padEnd(20)}${'shape'.padEnd(30)}${'ms'.padStart(10)}${'rate'.padStart(16)}${'of ceiling'.padStart(12)}${'error'.padStart(12)}`);
  for (const { kernel, shape, milliseconds, rate, unit, error } of figures) {
    const share = unit === 'GB/s' ? rate * 1e9 / ceilings.copyBytesPerSecond : rate * 1e12 / ceilings.flopsPerSecond;
    print(`${kernel.padEnd(20)}${shape.padEnd(30)}${milliseconds.toFixed(4).padStart(10)}${`${rate.toFixed(0)} ${unit}`.padStart(16)}${`${(100 * share).toFixed(0)} %`.padStart(12)}${(error === null ? '' : error.toExponential(1)).padStart(12)}`);
  }
  const device = bench.device.properties.name;
  bench.close();
  print(JSON.stringify({ device, ceilings, figures }));
}

main();
