/**
 * The GPU engine: driver, run-time compiler and matrix products called through FFI, KV memory and picked pages on
 * the device. A step is cut into runs; a run is issued kernel by kernel, and decode runs of a size that has come
 * before are replayed as graphs. Knows no techniques. Built by engine/create.ts, called by the scheduler.
 */
import { setImmediate as afterMessages } from 'node:timers/promises';
import { MAX_MOVED_PAGES, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { checkChunk, countMovedPages, ownPages, type Geometry } from '../check-chunk.ts';
import type { Chunk, Engine, EngineSpec, StepResult } from '../engine.ts';
import type { StepRows } from '../logit-row.ts';
import { decode } from '../model/decoder.ts';
import { Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import { PageRows } from '../page-rows.ts';
import { Compiler } from './compiler.ts';
import { AttentionLaunches } from './attention-launches.ts';
import { CudaOps } from './cuda-ops.ts';
import { activationFactors, type OpsParts, type RunAddresses } from './cuda-values.ts';
import { Device } from './device.ts';
import { DeviceMemory, type DeviceBuffer } from './device-memory.ts';
import { DeviceWeights, type Quantize, type WeightSource } from './device-weights.ts';
import { ExactHalves } from './exact-halves.ts';
import { CublasLt } from './ffi/cublas-lt.ts';
import { DeviceMemoryError } from './ffi/cuda-error.ts';
import type { SearchSettings } from './ffi/library-search.ts';
import { Nvrtc } from './ffi/nvrtc.ts';
import { Kernels } from './kernels.ts';
import { KeptTables } from './kept-tables.ts';
import { KvMemory, type KvFormat, type KvLayout } from './kv-memory.ts';
import { LinearLayers } from './linear-layers.ts';
import { MemoryBudget } from './memory-budget.ts';
import { MatrixProducts, type ElementType } from './matrix-products.ts';
import { MovedPages, type Move } from './moved-pages.ts';
import { RecordedRuns } from './recorded-runs.ts';
import { PreparedStep } from './prepared-step.ts';
import { countPromptPages, planRuns } from './run-planner.ts';
import { buildRunTables, isDecodeRun, type ChunkPlace, type RunModel, type RunTables } from './run-tables.ts';
import { RunUpload } from './run-upload.ts';
import { checkModel, engineSpec, runModel, suitsHopper } from './served-model.ts';
import { StepLogits } from './step-logits.ts';
import { SelectionMemory } from './selection-memory.ts';
import { Workspace } from './workspace.ts';

/** fp8: weights of the layers, and of a head that is not the table, in E4M3 with a scale for each output, made at load; all else fp16. */
export type CudaPrecision = ElementType | 'fp8';

export interface CudaEngineOptions {
  readonly spec: ModelSpec;
  readonly weights: WeightSource;
  readonly headOrder: Int32Array | null;
  readonly precision: CudaPrecision;
  /** As activations are unless it is said. */
  readonly kvFormat?: KvFormat;
  /** Pages of KV memory: a number, or how many are wanted of what memory allows. */
  readonly pages: { readonly exactly: number } | { readonly atMost: number };
  /** Tokens of a step that memory is set aside for; longer ones take more. */
  readonly stepTokens: number;
  /** Of texts that prefill is to be fastest for; as long as the model was trained for unless it is said. */
  readonly longestText?: number;
  /** Bytes that are left for another engine on the device. */
  readonly spareBytes?: number;
  readonly libraries: SearchSettings;
  /**
   * Hopper's attention and scores, linear layers of few rows by a kernel of our own, kernels that begin before the one
   * ahead has ended, prompts of several chunks in one run. Off: kernels for every chip, one after the other.
   */
  readonly fast: boolean;
}

/** More rows in a run make its products no faster. */
const MAX_RUN_ROWS = 8192;

export class CudaEngine implements Engine {
  readonly spec: EngineSpec;
  readonly pages: number;
  readonly pageIds: number;
  readonly worksApart = true;
  readonly device: Device;
  readonly memory: DeviceMemory;
  readonly kv: KvMemory;
  /** What the device took for the last step; the rest of its time the host was at work. */
  deviceMilliseconds = 0;
  readonly #geometry: Geometry;
  readonly #isFast: boolean;
  readonly #model: ModelSpec;
  readonly #rope: Rope;
  readonly #kvLayout: KvLayout;
  readonly #kernels: Kernels;
  readonly #products: MatrixProducts;
  readonly #workspace: Workspace;
  readonly #logits: StepLogits;
  readonly #parts: OpsParts;
  readonly #runModel: RunModel;
  readonly #moved: MovedPages;
  readonly #kept: KeptTables;
  readonly #upload: RunUpload;
  readonly #frequencies: DeviceBuffer;
  readonly #budget: MemoryBudget;
  readonly #recorded: RecordedRuns;
  /** From the first to the last thing that a step puts on the stream. */
  readonly #stepEvents: readonly [from: bigint, to: bigint];
  readonly #selection: SelectionMemory;
  #prepared: PreparedStep | null = null;

  /** Reads all weights; the caller may close them afterwards. Throws UnsupportedModelError for the operator. */
  constructor(options: CudaEngineOptions) {
    const { spec, weights, precision, libraries } = options;
    checkModel(spec);
    this.#model = spec;
    this.#rope = new Rope(spec.rope, spec.headDim);
    this.device = Device.open(libraries, { early: options.fast });
    this.#isFast = options.fast;
    this.memory = new DeviceMemory(this.device);
    this.#stepEvents = [this.device.newTimer(), this.device.newTimer()];
    this.#workspace = new Workspace(this.device, this.memory);
    this.#recorded = new RecordedRuns(this.device, this.#workspace);
    const { properties } = this.device;
    const compiler = new Compiler(Nvrtc.open(libraries), { architecture: properties.architecture });
    const hopper = options.fast && suitsHopper(spec, properties.capability);
    const type = precision === 'fp8' ? 'fp16' : precision;
    this.#kvLayout = { format: options.kvFormat ?? 'element', widens: hopper };
    this.#kernels = new Kernels(this.device, compiler, { type, headDim: spec.headDim, hopper, fast: options.fast, fp8: precision === 'fp8', sm90: properties.architecture === 'sm_90a', kv: this.#kvLayout.format });
    this.#products = new MatrixProducts(CublasLt.open(libraries), {
      device: this.device, type, workspace: this.memory.allocate(MatrixProducts.workspaceBytes, 'the workspace of products'),
    });
    const deviceWeights = new DeviceWeights(spec, {
      weights, memory: this.memory, type, exact: new ExactHalves(this.#kernels, this.memory), quantize: precision === 'fp8' ? this.#quantize() : null,
      deltaFactor: activationFactors[type].delta,
    });
    deviceWeights.register(this.#products);
    const vocabStride = deviceWeights.linear([spec.tiedHead ? 'model.embed_tokens' : 'lm_head']).columns;
    this.#logits = new StepLogits({
      device: this.device, memory: this.memory, workspace: this.#workspace, kernels: this.#kernels, vocab: spec.vocab, stride: vocabStride,
    });
    const fixed = this.#rope.frequencies(0);
    this.#frequencies = this.memory.allocate(fixed.byteLength, 'RoPE frequencies');
    this.memory.write(this.#frequencies, fixed);
    this.#selection = new SelectionMemory(this.memory, spec);
    this.#budget = new MemoryBudget({
      model: spec, kv: this.#kvLayout, vocabStride, multiprocessors: properties.multiprocessors, stepTokens: options.stepTokens, spareBytes: options.spareBytes ?? 0,
      longestText: options.longestText ?? spec.contextLength,
    });
    this.pages = this.#choosePages(options);
    this.pageIds = PageRows.idsFor(this.pages);
    this.kv = this.#newKvMemory();
    this.#moved = new MovedPages(this.pageIds, MAX_MOVED_PAGES);
    this.#kept = new KeptTables(this.pageIds);
    this.#upload = new RunUpload({ device: this.device, memory: this.memory, workspace: this.#workspace, kept: this.#kept });
    this.spec = engineSpec(spec, options, this.#kvLayout);
    this.#geometry = { ...this.spec, pageIds: this.pageIds };
    this.#runModel = runModel(spec, this.#rope, { hopper, widens: this.kv.wide !== null });
    this.#parts = {
      spec, kernels: this.#kernels, factors: activationFactors[type], weights: deviceWeights, kv: this.kv, workspace: this.#workspace,
      linears: new LinearLayers({ kernels: this.#kernels, products: this.#products, workspace: this.#workspace, fast: options.fast, multiprocessors: properties.multiprocessors, normEps: spec.normEps }),
      maxPick: () => this.#selection.maxPick, multiprocessors: properties.multiprocessors, sharedBytes: properties.sharedBytes, fast: options.fast,
    };
  }

  /** Messages that arrive while the device works are let in then, and not between two steps. */
  async run(step: readonly Chunk[]): Promise<StepResult> {
    const reads = this.#issue(step);
    await afterMessages();
    return { ...this.#finish(), ...reads };
  }

  /** Copies of pages that move are noted as made when they are planned: where there are any, nothing is prepared. */
  prepare(step: readonly Chunk[]): void {
    this.#dropPrepared();
    if (step.length === 0 || step.some(({ attention }) => countMovedPages(attention) > 0)) return;
    for (const chunk of step) this.#check(chunk);
    if (this.#planRuns(step).length === 1) this.#prepared = new PreparedStep(step, this.#makeTables(step));
  }

  truncate({ sequenceId, pageTable }: Pick<Chunk, 'sequenceId' | 'pageTable'>, length: number): void {
    this.#selection.truncate(sequenceId, length);
    // Statistics need nothing: a key that is written makes those of its logical page anew.
    this.#moved.truncate(sequenceId, new Set(pageTable.subarray(Math.floor(length / PAGE_TOKENS))));
  }

  release(page: number, heads: Int32Array | null): void {
    this.kv.pageRows.release(page, heads);
  }

  forget(sequenceId: number): void {
    this.#selection.forget(sequenceId);
    this.#moved.forget(sequenceId);
    this.#kept.forget(sequenceId);
  }

  close(): Promise<void> {
    this.device.synchronize();
    this.#recorded.drop();
    for (const event of this.#stepEvents) this.device.driver.call('eventDestroy', event);
    this.#products.close();
    this.#kernels.close();
    this.memory.close();
    this.device.close();
    return Promise.resolve();
  }

  /** Overwrites pages with NaN, as recycled memory might be. For tests. */
  poison(pages: Iterable<number>): void {
    for (const page of pages) {
      this.kv.pageRows.place(page);
      this.kv.poison(page, Array(this.kv.pageRows.heads).keys());
    }
  }

  /** Puts a step on the stream. */
  #issue(step: readonly Chunk[]): Pick<StepResult, 'pagesRead' | 'pagesScored'> {
    const prepared = this.#takePrepared(step);
    if (prepared === null) for (const chunk of step) this.#check(chunk);
    const [from, to] = this.#stepEvents;
    const runs = prepared === null ? this.#planRuns(step) : [step];
    this.#logits.begin(runs);
    let pagesRead = 0;
    let pagesScored = 0;
    runs.forEach((chunks, run) => {
      const tables = prepared ?? this.#makeTables(chunks);
      if (run === 0) this.device.mark(from);
      this.#run(chunks, tables);
      this.#logits.fetch(run);
      pagesRead += tables.pagesRead;
      pagesScored += tables.pagesScored;
    });
    if (runs.length === 0) this.device.mark(from);
    this.device.mark(to);
    return { pagesRead, pagesScored };
  }

  /** Decode reads the same pages in step after step: its page tables are kept. */
  #check(chunk: Chunk): void {
    const table = chunk.phase === 'decode' ? this.#kept.bring(chunk) : null;
    checkChunk(chunk, this.#geometry, table === null ? undefined : (pages) => { table.check(pages); });
  }

  /** Waits for what was put on the stream, and reads it. */
  #finish(): StepRows & Pick<StepResult, 'deviceMs'> {
    this.device.synchronize();
    this.deviceMilliseconds = this.device.elapsed(...this.#stepEvents);
    return { ...this.#logits.read(), deviceMs: this.deviceMilliseconds };
  }

  /** The tables of a step that was prepared; null for any other: what was prepared instead is dropped. */
  #takePrepared(step: readonly Chunk[]): RunTables | null {
    if (this.#prepared?.step !== step) {
      this.#dropPrepared();
      return null;
    }
    const tables = this.#prepared.complete(this.#model.vocab);
    this.#prepared = null;
    return tables;
  }

  /** Picks that were planned and will not be made are no picks. */
  #dropPrepared(): void {
    for (const { sequenceId, start } of this.#prepared?.step ?? []) this.#selection.truncate(sequenceId, start);
    this.#prepared = null;
  }

  #planRuns(step: readonly Chunk[]): (readonly Chunk[])[] {
    return planRuns(step, { rows: MAX_RUN_ROWS, scoredRows: this.#budget.scoredRows, chunks: this.#selection.numSlots, promptPages: this.#promptPages, joinsPrompts: this.#isFast });
  }

  /** Plans a run: where its tokens are written, which slots its picks take, which pages are copied, and its tables. */
  #makeTables(chunks: readonly Chunk[]): RunTables {
    const moves: Move[] = [];
    this.#moved.begin();
    this.#makeRoomForPicks(chunks);
    for (const chunk of chunks) for (const page of ownPages(chunk)) this.kv.pageRows.place(page);
    const inUse = new Set<number>();
    const moved: ChunkPlace['moved'] = (chunk, entry) => this.#moved.get(chunk, entry, moves);
    const places = chunks.map((chunk) => this.#place(chunk, moved, inUse));
    // What does not fit in 16 bits is read as it lies, by kernels for every chip.
    const model = countPromptPages(chunks) <= this.#promptPages ? this.#runModel : { ...this.#runModel, hopperRows: null };
    const tables = buildRunTables(places, model, { firstEntry: this.#kept.length, moves });
    for (const chunk of chunks) if (chunk.phase === 'prefill') this.#selection.truncate(chunk.sequenceId, chunk.start);
    return tables;
  }

  /** Puts a run on the stream. */
  #run(chunks: readonly Chunk[], tables: RunTables): void {
    this.kv.pageRows.bring();
    this.#movePages(tables.moves);
    const addresses = this.#addresses(tables);
    const issue = (): void => {
      this.#turnTable(tables, addresses);
      decode(new CudaOps(this.#parts, tables, addresses), this.#model);
    };
    if (isDecodeRun(chunks)) this.#recorded.run(this.#keyOf(tables), issue);
    else issue();
  }

  #place(chunk: Chunk, moved: ChunkPlace['moved'], inUse: Set<number>): ChunkPlace {
    const table = chunk.phase === 'decode' ? this.#kept.of(chunk) : null;
    return { chunk, ...this.#selection.place(chunk, inUse), table, moved };
  }

  #makeRoomForPicks(chunks: readonly Chunk[]): void {
    if (!this.#selection.lacksRoom(chunks)) return;
    this.device.synchronize();
    this.#recorded.drop();
    this.#selection.grow(chunks);
  }

  #quantize(): Quantize {
    return ({ from, rows, inner, scale }, { bytes, scales }) => {
      this.#kernels.get('quantize_rows').launch({ grid: [rows], block: [256] }, from, bytes, scales, inner, scale);
      // The matrix is freed next.
      this.device.synchronize();
    };
  }

  /** Pages that prompts of one run may read by kernels that want 16 bits. */
  get #promptPages(): number {
    return this.kv.wide === null ? Infinity : this.kv.wide.pages - MAX_MOVED_PAGES;
  }

  /** Behind the ids of the pool stand those of turned copies, which are whole for good. */
  #newKvMemory(): KvMemory {
    const ids = this.pageIds + MAX_MOVED_PAGES;
    const widePages = Math.min(ids, this.#budget.widePages);
    const kv = new KvMemory(this.#model, this.memory, { pages: this.pages + MAX_MOVED_PAGES, ids, widePages }, this.#kvLayout);
    for (let page = this.pageIds; page < ids; page++) kv.pageRows.place(page);
    return kv;
  }

  #movePages(moves: readonly Move[]): void {
    if (moves.length === 0) return;
    const { kvHeads, layers } = this.#model;
    const table = this.#workspace.get('moves', moves.length * 16);
    const turns = this.#workspace.get('turns', moves.length * this.#rope.pairs * 8);
    const frequencies = this.#workspace.get('turn frequencies', moves.length * this.#rope.pairs * 8);
    const rows = this.#workspace.get('turn rows', moves.length * 8);
    const ids = Int32Array.from(moves.flatMap(({ from, to }, i) => [from, to, i, 0]));
    const own = Float64Array.from(moves.flatMap(({ promptTokens }) => [...this.#rope.frequencies(promptTokens)]));
    const rowsAndDeltas = Int32Array.from([...moves.keys(), ...moves.map(({ delta }) => delta)]);
    const write = (address: bigint, source: Int32Array | Float64Array): void => { this.memory.write({ address, bytes: source.byteLength }, source); };
    write(table, ids);
    write(frequencies, own);
    write(rows, rowsAndDeltas);
    this.#kernels.get('rope_table').launch({ grid: [moves.length], block: [128] }, frequencies, rows, rows + BigInt(4 * moves.length), turns, this.#rope.pairs, 1);
    this.#kernels.get('turn_pages').launch({ grid: [moves.length, kvHeads, layers], block: [128] }, this.kv.keys, this.kv.values, this.kv.pageRows.address(0), table, turns, kvHeads);
  }

  #turnTable({ sizes, offsets }: RunTables, { block, ropeTable }: RunAddresses): void {
    const at = (name: keyof RunTables['offsets']): bigint => block + BigInt(offsets[name]);
    const own = sizes.frequencyRows > 0;
    this.#kernels.get('rope_table').launch(
      { grid: [sizes.rows], block: [128] },
      own ? at('frequencies') : this.#frequencies.address, own ? at('frequencyRow') : 0n, at('positions'), ropeTable, this.#rope.pairs, this.#rope.attentionFactor);
  }

  #addresses(tables: RunTables): RunAddresses {
    return {
      ...this.#upload.put(tables), selection: this.#selection.address,
      ropeTable: this.#workspace.get('turns of the run', tables.sizes.rows * this.#rope.pairs * 8),
    };
  }

  /** All that a recorded run depends on. */
  #keyOf(tables: RunTables): string {
    const attention = new AttentionLaunches(this.#parts, tables, { block: 0n, entries: 0n, entryPositions: 0n, selection: 0n, ropeTable: 0n });
    return `${JSON.stringify(tables.sizes)} ${attention.shape}`;
  }

  #choosePages({ pages }: CudaEngineOptions): number {
    if ('exactly' in pages) return pages.exactly;
    const { free, total } = this.device.memory();
    const affordable = this.#budget.pagesIn(free);
    if (affordable < 1) throw new DeviceMemoryError({ bytes: this.#budget.pageBytes + this.#budget.reserved, what: 'KV memory and a step', free, total });
    return Math.min(affordable, pages.atMost);
  }
}
