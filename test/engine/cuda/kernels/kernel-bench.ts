/**
 * One kernel at a time on a device: arrays go up, outputs start poisoned and come back as numbers. Inputs are drawn
 * anew in every run; the seed is in the message of what fails. Knows no kernel. Used by the kernel tests.
 */
import { randomInt } from 'node:crypto';
import { whyNoCuda } from '../../../../engine/cuda/availability.ts';
import { Compiler } from '../../../../engine/cuda/compiler.ts';
import { Device } from '../../../../engine/cuda/device.ts';
import { DeviceMemory, type DeviceBuffer } from '../../../../engine/cuda/device-memory.ts';
import { Nvrtc } from '../../../../engine/cuda/ffi/nvrtc.ts';
import { KernelModule, type Kernel, type ParameterType } from '../../../../engine/cuda/kernel.ts';
import { kernelSource } from '../../../../engine/cuda/kernels.ts';
import { SeededRandom } from '../../../seeded-random.ts';
import { bfloat16, float32 } from '../bfloat16.ts';

const libraries = { folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env };
const parameterTypes: Readonly<Record<string, ParameterType>> = { p: 'pointer', i: 'int32', l: 'int64', f: 'float32' };

export const reasonWithoutDevice = whyNoCuda(libraries);
if (reasonWithoutDevice !== null) process.stderr.write(`skipped: kernels run on a device. ${reasonWithoutDevice}\n`);

export interface Source {
  readonly file: string;
  readonly name: string;
  /** p pointer, i int32, l int64, f float32. */
  readonly parameters: string;
  readonly defines?: Readonly<Record<string, string | number>>;
}

export interface PageRows {
  /** As kernels are given them: address, heads from page to page. */
  readonly args: readonly [bigint, number];
  /** Rows of memory, the first one included. */
  readonly count: number;
  readonly of: (page: number, head: number) => number;
}

export class KernelBench {
  readonly seed = randomInt(2 ** 31);
  readonly random = new SeededRandom(this.seed);
  readonly device = Device.open(libraries);
  readonly memory = new DeviceMemory(this.device);
  readonly #compiler = new Compiler(Nvrtc.open(libraries), { architecture: this.device.properties.architecture });
  readonly #modules = new Map<string, KernelModule>();

  get isHopper(): boolean {
    return this.device.properties.architecture === 'sm_90a';
  }

  kernel({ file, name, parameters, defines = {} }: Source): Kernel {
    const key = `${file} ${JSON.stringify(defines)}`;
    const module = this.#modules.get(key) ?? new KernelModule(this.device, this.#compiler.compile(kernelSource(`${file}.cu`), defines));
    this.#modules.set(key, module);
    return module.kernel(name, Array.from(parameters, (letter) => parameterTypes[letter]!));
  }

  up(values: ArrayBufferView): DeviceBuffer {
    const buffer = this.memory.allocate(Math.max(values.byteLength, 16), 'a test');
    this.memory.write(buffer, values);
    return buffer;
  }

  ints(values: readonly number[]): DeviceBuffer {
    return this.up(Int32Array.from(values));
  }

  /** A row of memory for each head of each page, in any order; the first row is nobody's. */
  pageRows(pages: number, heads: number): PageRows {
    const rows = this.random.shuffled(Array.from({ length: pages * heads }, (_, i) => i + 1));
    return { args: [this.ints(rows).address, heads], count: rows.length + 1, of: (page, head) => rows[page * heads + head]! };
  }

  poisoned(bytes: number): DeviceBuffer {
    const buffer = this.memory.allocate(Math.max(bytes, 16), 'a test');
    this.memory.poison(buffer);
    return buffer;
  }

  /** Normal numbers as bf16 holds them. */
  normal(count: number, scale = 1): Float32Array {
    return float32(bfloat16(Float32Array.from({ length: count }, () => this.random.normal() * scale)));
  }

  /** bf16 on the device -> numbers. */
  elements(buffer: DeviceBuffer, count: number): Float32Array {
    return float32(new Uint16Array(this.memory.read(buffer, count * 2)));
  }

  floats(buffer: DeviceBuffer, count: number): Float32Array {
    return new Float32Array(this.memory.read(buffer, count * 4));
  }

  integers(buffer: DeviceBuffer, count: number): Int32Array {
    return new Int32Array(this.memory.read(buffer, count * 4));
  }

  /** ||got - wanted|| / ||wanted||; NaN where anything unwritten was read. */
  error(got: ArrayLike<number>, wanted: ArrayLike<number>): number {
    let difference = 0;
    let size = 0;
    for (let i = 0; i < wanted.length; i++) {
      difference += (got[i]! - wanted[i]!) ** 2;
      size += wanted[i]! ** 2;
    }
    return Math.sqrt(difference / (size || 1));
  }

  close(): void {
    for (const module of this.#modules.values()) module.unload();
    this.memory.close();
    this.device.close();
  }
}

export { bfloat16 };
