/**
 * From options to an engine: reads the model's configuration, opens its weights, sizes KV memory. The only
 * file that knows the engines by name; each is imported when it is asked for. Called by scheduler/process.ts.
 */
import { join } from 'node:path';
import { availableMemory } from 'node:process';
import { MAX_MOVED_PAGES, PAGE_TOKENS } from '../kvcache/page-lists/page-list.ts';
import { UnsupportedModelError, type Engine } from './engine.ts';
import { readHeadOrder } from './model/head-file.ts';
import { readJsonFile } from './model/model-file-error.ts';
import { parseModelSpec, type ModelSpec } from './model/spec.ts';
import { Weights } from './model/weights.ts';

export interface CreateEngineOptions {
  readonly engine: 'auto' | 'onnx' | 'cuda' | 'fake' | 'reference';
  /** Folder of a Hugging Face checkpoint. */
  readonly model: string;
  readonly precision: string;
  readonly kvPrecision: string;
  readonly threads: number;
  /** KV memory in tokens; 0 chooses by the memory that is free. */
  readonly kvTokens: number;
  /** Sequences that may run at the same time, and tokens of a step at most (0: what suits the engine): what memory is set aside for. */
  readonly maxSequences: number;
  readonly stepTokens: number;
  /** Bytes of device memory that are left for another engine beside this one. */
  readonly spareBytes?: number;
  /** Folder of the CUDA libraries; '' looks where they usually lie. */
  readonly cudaLibraries: string;
  /** See CudaEngineOptions.fast. */
  readonly cudaKernels: 'plain' | 'fast';
  /** Longest text to serve; 0 is the model's own limit. */
  readonly maxModelLen: number;
  /** Head file; '' looks for heads.json beside the model, then in the cache folder. */
  readonly headFile: string;
  /** Fake engine: milliseconds per step, 0 for none. */
  readonly fakeStepMs: number;
}

/** What every real engine is built from. */
interface LoadedModel {
  readonly spec: ModelSpec;
  readonly weights: Weights;
  readonly headOrder: Int32Array | null;
}

/** Texts of full length that KV memory should hold, if there is memory. */
const WANTED_TEXTS = 2;
/** Share of the free memory that KV memory may take unasked: weights and activations need the rest. */
const MEMORY_SHARE = 1 / 3;
const FEWEST_PAGES = 16;
const FAKE_KV_TOKENS = 4 * 1024 * 1024;
const FAKE_CONTEXT_TOKENS = 1024 * 1024;

/** A GPU's products reach their speed with more rows than a CPU's. */
const STEP_TOKENS = { cpu: 512, gpu: 8192 } as const;
const CPU_PRECISIONS = ['int8', 'fp32'];

/** The options with what 'auto' and a step of 0 tokens stand for on this machine. */
export async function settleOptions<O extends CreateEngineOptions>(options: O): Promise<O> {
  const engine = options.engine === 'auto' ? await engineOfMachine(options) : options.engine;
  return { ...options, engine, stepTokens: options.stepTokens || (engine === 'cuda' ? STEP_TOKENS.gpu : STEP_TOKENS.cpu) };
}

/** The GPU where there is one, unless the precision is one of the CPU's. */
async function engineOfMachine(options: CreateEngineOptions): Promise<'onnx' | 'cuda'> {
  if (CPU_PRECISIONS.includes(options.precision)) return 'onnx';
  const { whyNoCuda } = await import('./cuda/availability.ts');
  return whyNoCuda(librariesOf(options)) === null ? 'cuda' : 'onnx';
}

/** Throws UnsupportedModelError or ModelFileError: one sentence each, for the operator. */
export async function createEngine(unsettled: CreateEngineOptions): Promise<Engine> {
  const options = await settleOptions(unsettled);
  switch (options.engine) {
    case 'auto':
    case 'onnx': return createOnnx(options);
    case 'cuda': return createCuda(options);
    case 'reference': return createReference(options);
    case 'fake': return createFake(options);
  }
}

async function createCuda(options: CreateEngineOptions): Promise<Engine> {
  const { precision, kvTokens, maxModelLen, maxSequences, stepTokens, spareBytes = 0 } = options;
  if (precision !== 'auto' && !isGpuPrecision(precision)) {
    throw new UnsupportedModelError(`The cuda engine does not support precision '${precision}'; supported are bf16, fp16 and fp8.`);
  }
  const kvFormat = kvFormatOf(options.kvPrecision, precision === 'bf16' ? 'bf16' : 'fp16');
  const { CudaEngine } = await import('./cuda/cuda-engine.ts');
  const longestText = (spec: ModelSpec): number => maxModelLen || spec.contextLength;
  const wanted = (spec: ModelSpec): number => Math.ceil(longestText(spec) / PAGE_TOKENS) * maxSequences;
  return withModel(options, (model) => Promise.resolve(new CudaEngine({
    ...model, stepTokens, spareBytes, libraries: librariesOf(options), fast: options.cudaKernels === 'fast',
    precision: precision === 'auto' ? 'fp16' : precision, kvFormat, longestText: longestText(model.spec),
    pages: kvTokens > 0 ? { exactly: Math.ceil(kvTokens / PAGE_TOKENS) } : { atMost: wanted(model.spec) },
  })));
}

function isGpuPrecision(precision: string): precision is 'bf16' | 'fp16' | 'fp8' {
  return ['bf16', 'fp16', 'fp8'].includes(precision);
}

/** 'element': that of the activations. */
function kvFormatOf(kvPrecision: string, activations: 'fp16' | 'bf16'): 'element' | 'int8' | 'fp8' {
  if (kvPrecision === 'int8' || kvPrecision === 'fp8') return kvPrecision;
  if (kvPrecision === 'auto' || kvPrecision === activations) return 'element';
  throw new UnsupportedModelError(`The cuda engine computes in ${activations} and cannot keep KV memory in ${kvPrecision}; --kv-precision ${activations}, fp8 or int8 can.`);
}

function librariesOf({ cudaLibraries }: CreateEngineOptions) {
  return { folder: cudaLibraries, environment: process.env };
}

async function createOnnx(options: CreateEngineOptions): Promise<Engine> {
  const { threads } = options;
  const precision = options.precision === 'auto' ? 'int8' : options.precision;
  if (precision !== 'int8' && precision !== 'fp32') {
    throw new UnsupportedModelError(`The onnx engine does not support precision '${precision}'; supported are int8 and fp32.`);
  }
  if (options.kvPrecision !== 'auto' && options.kvPrecision !== precision) {
    throw new UnsupportedModelError(`The onnx engine keeps KV memory in ${precision} with --precision ${precision}; --kv-precision ${options.kvPrecision} is for the cuda engine.`);
  }
  const [{ createOnnxEngine }, { KvMemory }] = await Promise.all([import('./onnx/onnx-engine.ts'), import('./onnx/kv-memory.ts')]);
  const pages = (spec: ModelSpec) => numPages(options, spec, { elementBytes: precision === 'int8' ? 1 : 4, most: KvMemory.mostPages(spec) - MAX_MOVED_PAGES });
  return withModel(options, (model) => createOnnxEngine({ ...model, precision, threads, pages: pages(model.spec) }));
}

async function createReference(options: CreateEngineOptions): Promise<Engine> {
  const { ReferenceEngine } = await import('./reference/reference-engine.ts');
  const pages = (spec: ModelSpec) => numPages(options, spec, { elementBytes: Float64Array.BYTES_PER_ELEMENT, most: Infinity });
  return withModel(options, (model) => Promise.resolve(new ReferenceEngine({ ...model, pages: pages(model.spec) })));
}

/** No weights: the shape and the vocabulary are the model's, the context is as long as tests may want. */
async function createFake(options: CreateEngineOptions): Promise<Engine> {
  const { FakeEngine } = await import('./fake/fake-engine.ts');
  const spec = await readSpec(options.model);
  return new FakeEngine({
    pages: Math.ceil((options.kvTokens || FAKE_KV_TOKENS) / PAGE_TOKENS),
    vocab: spec.vocab, layers: spec.layers, kvHeads: spec.kvHeads, slidingWindow: spec.slidingWindow,
    contextLength: options.maxModelLen || FAKE_CONTEXT_TOKENS,
    headOrder: await readHeadOrder(options.model, options.headFile, spec),
    avoid: await readSpecialTokens(options.model),
    stepMs: options.fakeStepMs,
  });
}

async function readSpec(model: string): Promise<ModelSpec> {
  return parseModelSpec(await readJsonFile(join(model, 'config.json')));
}

async function withModel(options: CreateEngineOptions, build: (model: LoadedModel) => Promise<Engine>): Promise<Engine> {
  const spec = await readSpec(options.model);
  const headOrder = await readHeadOrder(options.model, options.headFile, spec);
  const weights = await Weights.open(options.model, spec);
  try {
    return await build({ spec, weights, headOrder });
  } finally {
    weights.close();
  }
}

/** elementBytes: of one channel of a key or a value. most: pages that the engine can have at all. */
function numPages({ kvTokens, maxModelLen }: CreateEngineOptions, spec: ModelSpec, { elementBytes, most }: { elementBytes: number; most: number }): number {
  if (kvTokens > most * PAGE_TOKENS) {
    throw new UnsupportedModelError(`KV memory of ${kvTokens} tokens is more than the engine can have for this model: ${most * PAGE_TOKENS}.`);
  }
  if (kvTokens > 0) return Math.ceil(kvTokens / PAGE_TOKENS);
  // Key, value, and about an eighth for the statistics.
  const pageBytes = PAGE_TOKENS * spec.layers * spec.kvHeads * spec.headDim * elementBytes * 2.125;
  const affordable = Math.floor(availableMemory() * MEMORY_SHARE / pageBytes);
  const wanted = Math.ceil(WANTED_TEXTS * (maxModelLen || spec.contextLength) / PAGE_TOKENS);
  return Math.max(FEWEST_PAGES, Math.min(affordable, wanted, most));
}

/** Ids that end or frame texts, by config.json and generation_config.json. */
async function readSpecialTokens(model: string): Promise<readonly number[]> {
  // Whether generation_config.json is there and sound is not the engine's business: the server reads it.
  const generation = await readJsonFile(join(model, 'generation_config.json')).catch(() => null);
  const configs = [await readJsonFile(join(model, 'config.json')), generation];
  return configs.flatMap((config) => {
    const { bos_token_id: bos, eos_token_id: eos, pad_token_id: pad } = (config ?? {}) as Record<string, unknown>;
    return [bos, eos, pad].flat().filter((id) => typeof id === 'number');
  });
}
