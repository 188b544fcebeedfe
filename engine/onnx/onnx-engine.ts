/**
 * The CPU engine: one ONNX Runtime session over a graph of our own, KV memory in typed arrays, page lists
 * and page selection inside the graph. A step is cut into runs: single tokens that fit together share one,
 * each longer chunk is its own. Knows no techniques. Built by engine/create.ts, called by the scheduler.
 */
import { InferenceSession, type Tensor } from 'onnxruntime-node';
import { LOGICAL_PAGE_TOKENS, MAX_MOVED_PAGES, PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { checkChunk } from '../check-chunk.ts';
import type { Chunk, Engine, EngineSpec, StepResult } from '../engine.ts';
import { decode } from '../model/decoder.ts';
import { Rope } from '../model/rope.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { Weights } from '../model/weights.ts';
import type { QueryProbe } from '../query-probe.ts';
import { Graph } from './graph.ts';
import { layerNames, type OnnxPrecision } from './graph-interface.ts';
import { GraphOps } from './graph-ops.ts';
import { PageRows } from '../page-rows.ts';
import { KvMemory } from './kv-memory.ts';
import { calibrateScales, scaleInputs, type LayerScales } from './kv-scales.ts';
import { PickedPages } from './picked-pages.ts';
import { RotatedPages } from './rotated-pages.ts';
import { listsOf, RunInputs, type Feeds, type PreparedRun, type Run } from './run-inputs.ts';
import { planRuns, type PlanOptions } from './run-planner.ts';

export interface OnnxEngineOptions {
  readonly spec: ModelSpec;
  readonly weights: Weights;
  readonly precision: OnnxPrecision;
  readonly threads: number;
  readonly pages: number;
  readonly headOrder: Int32Array | null;
  /** Shown every layer's queries, in fp32 only: int8 keys are stored in units of their own. */
  readonly probe?: QueryProbe;
}

const CALIBRATION_TOKENS = 256;

export async function createOnnxEngine(options: OnnxEngineOptions): Promise<OnnxEngine> {
  const { spec, weights, precision, threads, probe } = options;
  if (probe !== undefined && precision !== 'fp32') throw new RangeError(`queries are probed in fp32, not in ${precision}`);
  turnOffTelemetry();
  const graph = new Graph();
  const logits = decode(new GraphOps({ graph, spec, weights, precision, showsQueries: probe !== undefined }), spec);
  graph.output('logits', logits, 'float32', ['rows', spec.vocab]);
  const session = await InferenceSession.create(graph.model(), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    externalData: graph.external.map(({ path, data }) => ({ path, data })),
  });
  const engine = new OnnxEngine(session, options);
  if (precision === 'int8') await engine.calibrate();
  return engine;
}

/**
 * From 1.29 on ONNX Runtime reports its use to its maker over the network and keeps a device id on disk, unless this
 * stands in the environment before the first session of the process.
 */
function turnOffTelemetry(): void {
  process.env['ORT_DISABLE_TELEMETRY'] = '1';
}

export class OnnxEngine implements Engine {
  readonly spec: EngineSpec;
  readonly pages: number;
  readonly pageIds: number;
  readonly memory: KvMemory;
  readonly #model: ModelSpec;
  readonly #session: InferenceSession;
  readonly #picked: PickedPages;
  readonly #rotated: RotatedPages;
  readonly #inputs: RunInputs;
  readonly #probe: QueryProbe | null;
  readonly #plan: PlanOptions;
  #scaleFeeds: Feeds = {};

  constructor(session: InferenceSession, { spec, precision, threads, pages, headOrder, probe }: OnnxEngineOptions) {
    this.#session = session;
    this.#probe = probe ?? null;
    this.#model = spec;
    this.pages = pages;
    this.spec = engineSpec(spec, precision, headOrder);
    const rope = new Rope(spec.rope, spec.headDim);
    this.pageIds = PageRows.idsFor(pages);
    this.memory = new KvMemory({ ...spec, precision, pages: pages + MAX_MOVED_PAGES, ids: this.pageIds + MAX_MOVED_PAGES });
    this.#picked = new PickedPages();
    this.#plan = planOptions(spec, { precision, threads }, this.#picked);
    this.#rotated = new RotatedPages({ memory: this.memory, rope, firstPage: this.pageIds, numPages: MAX_MOVED_PAGES });
    this.#inputs = new RunInputs({ spec, precision, rope, memory: this.memory, picked: this.#picked, rotated: this.#rotated });
  }

  async run(step: readonly Chunk[]): Promise<StepResult> {
    for (const chunk of step) checkChunk(chunk, { ...this.spec, pageIds: this.pageIds });
    const logits = new Map<Chunk, Float32Array>();
    let pagesRead = 0;
    let pagesScored = 0;
    for (const run of planRuns(step, this.#plan)) {
      const prepared = this.#inputs.prepare(run);
      const outputs = await this.#session.run({ ...prepared.feeds, ...this.memory.tensors, ...this.#scaleFeeds });
      this.#store(run, outputs);
      if (this.#probe !== null) this.#show(this.#probe, run, outputs);
      if (run.pick > 0) this.#remember(run, prepared, outputs);
      this.#collect(run, outputs, logits);
      pagesRead += prepared.pagesRead;
      pagesScored += prepared.pagesScored;
    }
    return { logits: step.map((chunk) => (chunk.logits === 'none' ? null : logits.get(chunk)!)), pagesRead, pagesScored };
  }

  truncate({ sequenceId, pageTable }: Pick<Chunk, 'sequenceId' | 'pageTable'>, length: number): void {
    this.#picked.truncate(sequenceId, length);
    const slot = length % PAGE_TOKENS;
    if (slot > 0) this.memory.truncate(pageTable[Math.floor(length / PAGE_TOKENS)]!, slot);
  }

  release(page: number, heads: Int32Array | null): void {
    this.memory.release(page, heads);
  }

  forget(sequenceId: number): void {
    this.#picked.forget(sequenceId);
    this.#rotated.forget(sequenceId);
  }

  async close(): Promise<void> {
    await this.#session.release();
  }

  /** Finds the scales of int8 keys and values; before the first step. Leaves zeros in KV memory. */
  async calibrate(): Promise<void> {
    const scales = await calibrateScales(this.#model, (current) => this.#calibrationRun(current));
    this.#scaleFeeds = scaleInputs(this.#model, scales);
  }

  async #calibrationRun(scales: readonly LayerScales[]) {
    const run = calibrationRun(this.#model);
    const { feeds } = this.#inputs.prepare(run);
    const outputs = await this.#session.run({ ...feeds, ...this.memory.tensors, ...scaleInputs(this.#model, scales) });
    return scales.map((_, layer) => {
      const names = layerNames(layer);
      return { keys: outputs[names.newKeys]!.data as Int8Array, values: outputs[names.newValues]!.data as Int8Array };
    });
  }

  /** The graph cannot write into its inputs: new rows come out and are copied to their pages here. */
  #store({ chunks }: Run, outputs: Record<string, Tensor>): void {
    for (let layer = 0; layer < this.#model.layers; layer++) {
      const names = layerNames(layer);
      const keys = outputs[names.newKeys]!.data as Int8Array | Float32Array;
      const values = outputs[names.newValues]!.data as Int8Array | Float32Array;
      let first = 0;
      for (const chunk of chunks) {
        this.memory.write(layer, { keys, values, first, count: chunk.tokens.length }, chunk);
        first += chunk.tokens.length;
      }
    }
  }

  #show(probe: QueryProbe, { chunks }: Run, outputs: Record<string, Tensor>): void {
    const width = this.#model.heads * this.#model.headDim;
    for (let layer = 0; layer < this.#model.layers; layer++) {
      const rows = outputs[layerNames(layer).queries]!.data as Float32Array;
      const keysOf = (kvHead: number, page: number) => this.memory.keysOf(layer, kvHead, page) as Float32Array;
      let first = 0;
      for (const chunk of chunks) {
        const end = first + chunk.tokens.length;
        probe.observe({ chunk, layer, queries: rows.subarray(first * width, end * width), keysOf });
        first = end;
      }
    }
  }

  #remember(run: Run, { selectedItems }: PreparedRun, outputs: Record<string, Tensor>): void {
    const { chunks, pick, numSelecting } = run;
    const perLayer = listsOf(run, this.#model);
    const numLists = perLayer * this.#model.layers;
    selectedItems.forEach((items, layer) => {
      const rows = outputs[layerNames(layer).picked]!.data as Int32Array;
      items.forEach((item, i) => {
        const index = Math.floor(item / perLayer);
        if (index >= numSelecting) return;
        const { phase, sequenceId, start } = chunks[index]!;
        if (phase === 'decode') this.#picked.set({ sequenceId, start, numLists }, layer * perLayer + (item % perLayer), rows.subarray(i * pick, (i + 1) * pick));
      });
    });
  }

  #collect({ chunks }: Run, outputs: Record<string, Tensor>, logits: Map<Chunk, Float32Array>): void {
    const data = outputs.logits!.data as Float32Array;
    const { vocab } = this.#model;
    let row = 0;
    for (const chunk of chunks) {
      const numRows = chunk.logits === 'all' ? chunk.tokens.length : 1;
      logits.set(chunk, data.subarray(row * vocab, (row + numRows) * vocab));
      row += numRows;
    }
  }
}

/** Attention by blocks is for int8 and knows no sliding windows. */
function planOptions({ heads, slidingWindow }: ModelSpec, { precision, threads }: Pick<OnnxEngineOptions, 'precision' | 'threads'>, picked: PickedPages): PlanOptions {
  return {
    picked,
    hasBlocks: precision === 'int8' && slidingWindow.every((window) => window === null),
    leastBatch: precision === 'int8' ? Math.ceil(threads / heads) : 1,
  };
}

function engineSpec(spec: ModelSpec, precision: OnnxPrecision, headOrder: Int32Array | null): EngineSpec {
  const bytes = precision === 'int8' ? 1 : 4;
  const statisticsPerToken = 2 / LOGICAL_PAGE_TOKENS;
  return {
    engine: 'onnx',
    precision,
    layers: spec.layers,
    kvHeads: spec.kvHeads,
    vocab: spec.vocab,
    contextLength: spec.contextLength,
    slidingWindow: spec.slidingWindow,
    headOrder,
    keysDependOnPromptLength: spec.rope.type === 'dynamic',
    kvBytesPerToken: spec.layers * spec.kvHeads * spec.headDim * bytes * (2 + statisticsPerToken),
  };
}

/** Random tokens from an empty memory: enough to see every channel's range. */
function calibrationRun({ layers, kvHeads, vocab }: ModelSpec): Run {
  let state = 1;
  const tokens = Int32Array.from({ length: CALIBRATION_TOKENS }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocab);
  });
  const none = new Int32Array(0);
  const plan = { fixed: none, positionDelta: null, candidates: none, pick: 0, pickPer: 'kvHead', tokens: 0 } as const;
  const attention = { classes: [plan], classOf: new Uint8Array(layers * kvHeads), selection: 'fresh' } as const;
  const pageTable = new Int32Array(Math.ceil(CALIBRATION_TOKENS / PAGE_TOKENS));
  const chunk = { sequenceId: 0, tokens, start: 0, pageTable, attention, promptTokens: CALIBRATION_TOKENS, phase: 'prefill', logits: 'last' } as const;
  return { kind: 'uniform', chunks: [chunk], pick: 0, numSelecting: 0 };
}
