/**
 * The kernels of kernels/*.cu by name, compiled for one model and one device, with the signatures that
 * kernels/CONTRACT.md gives. Knows no step. Made by cuda-engine.ts, launched by cuda-ops.ts and moved-pages.ts.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Compiler } from './compiler.ts';
import type { Device } from './device.ts';
import type { KernelSource } from './ffi/nvrtc.ts';
import { KernelModule, type Kernel, type ParameterType } from './kernel.ts';
import type { KvFormat } from './kv-memory.ts';
import type { ElementType } from './matrix-products.ts';

export interface KernelChoice {
  readonly type: ElementType;
  readonly headDim: number;
  /** Those of Hopper's attention and scoring too. */
  readonly hopper: boolean;
  /** Those of linear layers of few rows, and those that do several things at once, too. */
  readonly fast: boolean;
  /** Those of linear layers with fp8 weights too. */
  readonly fp8: boolean;
  /** The chip has Hopper's instructions. */
  readonly sm90: boolean;
  readonly kv: KvFormat;
}

interface KernelEntry {
  readonly file: string;
  /** Name in the source, where it is another than the key: one source may be compiled with several defines. */
  readonly entry?: string;
  /** p pointer, i int32, l int64, f float32. */
  readonly parameters: string;
  readonly defines?: Readonly<Record<string, number>>;
  /** Compiled for the format of KV memory. */
  readonly readsPages?: boolean;
  /** Loaded only where this is chosen; 'widened': Hopper's attention over pages of 8 bits. */
  readonly only?: 'hopper' | 'few' | 'fp8' | 'many' | 'widened';
}

/** Half for loads that are under way, half shared: what decode is fastest with (docs/log.md). */
const SHARED_PERCENT = 50;

const FOLDER = join(import.meta.dirname, 'kernels');

const parameters = { hopperAttention: 'pippppipppppppiiiiiif', score: 'pippippppppiiii', linear: 'pppppiiif', gated: 'ppppiiiff', stream: 'ppppppiiiiff', streamGated: 'pppppiiifff', fp8: 'ppppppiiif', fp8Gated: 'ppppppiiiff' };

const entries = {
  embed: { file: 'basic', parameters: 'pppif' },
  rms_norm: { file: 'basic', parameters: 'pppif' },
  add_norm: { file: 'basic', parameters: 'pppppiff' },
  silu_mul: { file: 'basic', parameters: 'ppif' },
  rope_table: { file: 'rope_table', parameters: 'ppppif' },
  rope_write: { file: 'rope_write', parameters: 'pipppfppppppiii', readsPages: true },
  score: { file: 'score', parameters: `${parameters.score}i` },
  score_hopper: { file: 'score_hopper', parameters: parameters.score, only: 'hopper' },
  pick: { file: 'pick', parameters: 'pippppppiiiii' },
  attend: { file: 'attend', parameters: 'pippppipppppppippiiiiif', readsPages: true },
  attend_token: { file: 'attend_token', parameters: 'pippppipppppppippiiiiifppfpp', readsPages: true },
  attend_hopper: { file: 'attend_hopper', parameters: parameters.hopperAttention, only: 'hopper' },
  turn_pages: { file: 'turn_pages', parameters: 'pppppi', readsPages: true },
  widen_pages: { file: 'widen_pages', parameters: 'pppippppi', readsPages: true, only: 'widened' },
  head_parts: { file: 'sample', parameters: 'piipppp' },
  join_heads: { file: 'sample', parameters: 'ppppipipp' },
  linear_8: { file: 'linear_few', entry: 'linear_few', parameters: parameters.linear, only: 'few' },
  gated_8: { file: 'linear_few', entry: 'linear_few_gated', parameters: parameters.gated, only: 'few' },
  linear_stream: { file: 'linear_stream', parameters: parameters.stream, only: 'few' },
  gated_stream: { file: 'linear_stream', entry: 'linear_stream_gated', parameters: parameters.streamGated, only: 'few' },
  linear_stream_fp8: { file: 'linear_stream', entry: 'linear_stream', parameters: parameters.stream, defines: { WEIGHT_FP8: 1 }, only: 'fp8' },
  gated_stream_fp8: { file: 'linear_stream', entry: 'linear_stream_gated', parameters: parameters.streamGated, defines: { WEIGHT_FP8: 1 }, only: 'fp8' },
  linear_8_fp8: { file: 'linear_few', entry: 'linear_few', parameters: parameters.linear, defines: { WEIGHT_FP8: 1 }, only: 'fp8' },
  linear_16_fp8: { file: 'linear_few', entry: 'linear_few', parameters: parameters.linear, defines: { WEIGHT_FP8: 1, INPUT_TILES: 2 }, only: 'fp8' },
  gated_8_fp8: { file: 'linear_few', entry: 'linear_few_gated', parameters: parameters.gated, defines: { WEIGHT_FP8: 1 }, only: 'fp8' },
  gated_16_fp8: { file: 'linear_few', entry: 'linear_few_gated', parameters: parameters.gated, defines: { WEIGHT_FP8: 1, INPUT_TILES: 2 }, only: 'fp8' },
  linear_32_fp8: { file: 'linear_fp8', entry: 'linear_fp8', parameters: parameters.fp8, defines: { ROWS: 32 }, only: 'many' },
  linear_64_fp8: { file: 'linear_fp8', entry: 'linear_fp8', parameters: parameters.fp8, defines: { ROWS: 64 }, only: 'many' },
  gated_32_fp8: { file: 'linear_fp8', entry: 'linear_fp8_gated', parameters: parameters.fp8Gated, defines: { ROWS: 32 }, only: 'many' },
  gated_64_fp8: { file: 'linear_fp8', entry: 'linear_fp8_gated', parameters: parameters.fp8Gated, defines: { ROWS: 64 }, only: 'many' },
  largest_bf16: { file: 'rescale', parameters: 'ppl' },
  rescale: { file: 'rescale', parameters: 'plif' },
  quantize_rows: { file: 'quantize', parameters: 'pppif', only: 'fp8' },
  dequantize_rows: { file: 'quantize', parameters: 'pppi', only: 'fp8' },
} as const satisfies Record<string, KernelEntry>;

export type KernelName = keyof typeof entries;

/** Every kernel's file, name and parameters: what a test holds against the sources. */
export const kernelEntries: Readonly<Record<KernelName, KernelEntry>> = entries;

const parameterTypes: Readonly<Record<string, ParameterType>> = { p: 'pointer', i: 'int32', l: 'int64', f: 'float32' };

export class Kernels {
  readonly #kernels = new Map<string, Kernel>();
  readonly #modules = new Map<string, KernelModule>();

  constructor(device: Device, compiler: Compiler, choice: KernelChoice) {
    const { hopper, fast, fp8, sm90, type, kv } = choice;
    const tuned = fast && sm90;
    const chosen = { hopper, few: fast, fp8, many: tuned && fp8 && type === 'fp16', widened: hopper && kv !== 'element' };
    const ofPages = kv === 'element' ? {} : { [kv === 'fp8' ? 'KV_FP8' : 'KV_INT8']: 1 };
    const ofFp8 = tuned && type === 'fp16' ? { FP8_CONVERT: 1 } : {};
    const common = { HEAD_DIM: choice.headDim, ...(type === 'fp16' ? { ELEMENT_FP16: 1 } : {}) };
    for (const [name, kernel] of Object.entries(kernelEntries)) {
      if (kernel.only !== undefined && !chosen[kernel.only]) continue;
      const defines = { ...common, ...kernel.defines, ...(kernel.only === 'fp8' ? ofFp8 : {}), ...(kernel.readsPages === true ? ofPages : {}) };
      const key = `${kernel.file} ${JSON.stringify(defines)}`;
      const module = this.#modules.get(key) ?? new KernelModule(device, compiler.compile(kernelSource(`${kernel.file}.cu`), defines));
      this.#modules.set(key, module);
      const loaded = module.kernel(kernel.entry ?? name, Array.from(kernel.parameters, (letter) => parameterTypes[letter]!));
      // Attention over pages of 8 bits has more blocks on a multiprocessor than that share holds.
      if (tuned && !kernel.file.endsWith('_hopper') && !(kernel.readsPages === true && kv !== 'element')) loaded.preferShared(SHARED_PERCENT);
      this.#kernels.set(name, loaded);
    }
  }

  has(name: KernelName): boolean {
    return this.#kernels.has(name);
  }

  get(name: KernelName): Kernel {
    const kernel = this.#kernels.get(name);
    if (kernel === undefined) throw new RangeError(`kernel ${name} was not chosen`);
    return kernel;
  }

  close(): void {
    for (const module of this.#modules.values()) module.unload();
  }
}

/** Names of the source files. */
export function kernelFiles(): readonly string[] {
  return readdirSync(FOLDER).filter((name) => name.endsWith('.cu')).toSorted();
}

/** A source with all headers of its folder. */
export function kernelSource(name: string): KernelSource {
  const headers = readdirSync(FOLDER).filter((file) => file.endsWith('.cuh')).toSorted();
  return { name, text: read(name), headers: new Map(headers.map((file) => [file, read(file)])) };
}

function read(name: string): string {
  return readFileSync(join(FOLDER, name), 'utf8');
}
