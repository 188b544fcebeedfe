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
import type { ElementType } from './matrix-products.ts';

export interface KernelChoice {
  readonly type: ElementType;
  readonly headDim: number;
}

const FOLDER = join(import.meta.dirname, 'kernels');

/** File and parameters of each kernel; p pointer, i int32, l int64, f float32. */
const signatures = {
  embed: ['basic', 'pppi'],
  rms_norm: ['basic', 'pppif'],
  add_norm: ['basic', 'pppppif'],
  silu_mul: ['basic', 'ppi'],
  rope_table: ['rope_table', 'ppppif'],
  rope_write: ['rope_write', 'pipppfpppppii'],
  score: ['score', 'pipppppppiiii'],
  pick: ['pick', 'pippppppiiiii'],
  attend: ['attend', 'pippppppppppippiiiiif'],
  turn_pages: ['turn_pages', 'pplppi'],
} as const satisfies Record<string, readonly [file: string, parameters: string]>;

const HOPPER_SIGNATURE = 'pippppppppppiiiiiif';

export type KernelName = keyof typeof signatures;

const parameterTypes: Readonly<Record<string, ParameterType>> = { p: 'pointer', i: 'int32', l: 'int64', f: 'float32' };

export class Kernels {
  readonly #kernels: Readonly<Record<KernelName, Kernel>>;
  /** Prefill attention by Hopper's own instructions; null where they are missing or do not fit the model. */
  readonly attendHopper: Kernel | null;
  readonly #modules: readonly KernelModule[];

  constructor(device: Device, compiler: Compiler, { type, headDim, hopper }: KernelChoice & { readonly hopper: boolean }) {
    const defines = { HEAD_DIM: headDim, ...(type === 'fp16' ? { ELEMENT_FP16: 1 } : {}) };
    const modules = new Map<string, KernelModule>();
    const moduleOf = (file: string): KernelModule => {
      const known = modules.get(file) ?? new KernelModule(device, compiler.compile(kernelSource(`${file}.cu`), defines));
      modules.set(file, known);
      return known;
    };
    const load = (name: string, file: string, parameters: string): Kernel =>
      moduleOf(file).kernel(name, Array.from(parameters, (letter) => parameterTypes[letter]!));
    const kernels: Partial<Record<KernelName, Kernel>> = {};
    for (const name of kernelNames) {
      const [file, parameters] = signatures[name];
      kernels[name] = load(name, file, parameters);
    }
    this.#kernels = kernels as Record<KernelName, Kernel>;
    this.attendHopper = hopper ? load('attend_hopper', 'attend_hopper', HOPPER_SIGNATURE) : null;
    this.#modules = [...modules.values()];
  }

  get(name: KernelName): Kernel {
    return this.#kernels[name];
  }

  close(): void {
    for (const module of this.#modules) module.unload();
  }
}

export const kernelNames = Object.keys(signatures) as KernelName[];

/** Every kernel's file and parameter letters: what a test holds against the sources. */
export const kernelSignatures: Readonly<Record<string, readonly [file: string, parameters: string]>> = { ...signatures, attend_hopper: ['attend_hopper', HOPPER_SIGNATURE] };

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
