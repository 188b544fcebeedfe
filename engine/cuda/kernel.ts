/**
 * Modules of compiled kernels and typed launches: the number, the types and the ranges of arguments are checked
 * against a signature before the driver sees them. Arguments lie in one buffer with a prepared array of pointers,
 * so that a launch costs well under a microsecond. Knows no kernel by name. Called by kernels.ts.
 */
import koffi from 'koffi';
import type { Device } from './device.ts';
import { CudaError } from './ffi/cuda-error.ts';
import { functionAttributes, resultCodes } from './ffi/driver.ts';

/** C types of kernel parameters: T *, int, long long, float, and CUtensorMap by value. */
export type ParameterType = 'pointer' | 'int32' | 'int64' | 'float32' | 'tensorMap';

export type KernelArgument = bigint | number | Uint8Array;

export interface Geometry {
  readonly grid: readonly [x: number, y?: number, z?: number];
  readonly block: readonly [x: number, y?: number, z?: number];
  /** Dynamic shared memory in bytes. */
  readonly shared?: number;
  /** Whether it may begin before the kernel ahead has ended, where the device launches so; true unless said otherwise. */
  readonly early?: boolean;
}

/** CUlaunchConfig and the one CUlaunchAttribute that it points to: a kernel may begin before the one ahead has ended. */
const CONFIG = { bytes: 128, shared: 24, stream: 32, attributes: 40, numAttributes: 48, attribute: 56, value: 64 } as const;
const PROGRAMMATIC_SERIALIZATION = 6;

const sizes: Readonly<Record<ParameterType, number>> = { pointer: 8, int32: 4, int64: 8, float32: 4, tensorMap: 128 };
const alignments: Readonly<Record<ParameterType, number>> = { pointer: 8, int32: 4, int64: 8, float32: 4, tensorMap: 64 };
const INT32_END = 2 ** 31;

export class KernelModule {
  readonly #device: Device;
  readonly #module: bigint;

  constructor(device: Device, cubin: Uint8Array) {
    this.#device = device;
    this.#module = device.driver.handle('moduleLoad', cubin);
  }

  kernel(name: string, signature: readonly ParameterType[]): Kernel {
    return new Kernel(this.#device, { name, handle: this.#device.driver.handle('moduleFunction', this.#module, name), signature });
  }

  unload(): void {
    this.#device.driver.call('moduleUnload', this.#module);
  }
}

export class Kernel {
  readonly name: string;
  readonly signature: readonly ParameterType[];
  readonly #device: Device;
  readonly #handle: bigint;
  readonly #launch;
  readonly #launchWith;
  /** Arguments of the launch that is being issued; the driver copies them before it returns. */
  readonly #values: DataView;
  readonly #offsets: readonly number[];
  /** Addresses inside #values: both must live as long as the kernel. */
  readonly #pointers: BigUint64Array;
  /** Grid, block, shared memory, stream and attribute of an early launch. */
  readonly #config: DataView;
  /** What the function's attribute says: static and dynamic memory together may pass 48 KiB only with it. */
  #sharedLimit = 0;

  constructor(device: Device, { name, handle, signature }: { name: string; handle: bigint; signature: readonly ParameterType[] }) {
    this.name = name;
    this.signature = signature;
    this.#device = device;
    this.#handle = handle;
    this.#launch = device.driver.raw('launch');
    this.#launchWith = device.driver.raw('launchWith');
    this.#config = launchConfig(device);
    const { offsets, bytes } = layOut(signature);
    const buffer = new ArrayBuffer(bytes);
    const base = koffi.address(buffer);
    this.#offsets = offsets;
    this.#values = new DataView(buffer);
    this.#pointers = BigUint64Array.from(offsets, (offset) => base + BigInt(offset));
  }

  /** Registers a thread, and bytes of local memory a thread: spills. */
  resources(): { registers: number; localBytes: number } {
    const read = (attribute: number): number => this.#device.driver.integer('functionGet', attribute, this.#handle);
    return { registers: read(functionAttributes.registers), localBytes: read(functionAttributes.localBytes) };
  }

  /** Per cent of a multiprocessor's memory that are to be shared memory: another share for the next kernel would hold it up. */
  preferShared(percent: number): void {
    this.#device.driver.call('functionSet', this.#handle, functionAttributes.preferredShared, percent);
  }

  /** Issues the kernel on the device's stream. Throws RangeError or TypeError for arguments that do not fit the signature. */
  launch({ grid, block, shared = 0, early = true }: Geometry, ...args: readonly KernelArgument[]): void {
    if (args.length !== this.signature.length) throw new TypeError(`kernel ${this.name} takes ${this.signature.length} arguments, got ${args.length}`);
    for (let i = 0; i < args.length; i++) this.#set(i, args[i]!);
    if (shared > this.#sharedLimit) this.#raiseShared(shared);
    const sizes = [grid[0], grid[1] ?? 1, grid[2] ?? 1, block[0], block[1] ?? 1, block[2] ?? 1, shared] as const;
    const code = early && this.#device.launchesEarly ? this.#launchEarly(sizes)
      : this.#launch(this.#handle, ...sizes, this.#device.stream, this.#pointers, null);
    if (code !== resultCodes.success) {
      throw new CudaError(`launching ${this.name} with grid ${grid.join('x')}, block ${block.join('x')} and ${shared} shared bytes`, code, this.#device.driver.errorName(code));
    }
  }

  #launchEarly(sizes: readonly number[]): number {
    for (let i = 0; i < sizes.length; i++) this.#config.setUint32(4 * i, sizes[i]!, true);
    return this.#launchWith(this.#config, this.#handle, this.#pointers, null);
  }

  #set(index: number, value: KernelArgument): void {
    const type = this.signature[index]!;
    const at = this.#offsets[index]!;
    if (type === 'pointer' && typeof value === 'bigint') this.#values.setBigUint64(at, value, true);
    else if (type === 'int32' && isInt32(value)) this.#values.setInt32(at, value, true);
    else if (type === 'int64' && typeof value === 'number' && Number.isSafeInteger(value)) this.#values.setBigInt64(at, BigInt(value), true);
    else if (type === 'float32' && typeof value === 'number') this.#values.setFloat32(at, value, true);
    else if (type === 'tensorMap' && value instanceof Uint8Array && value.length === sizes.tensorMap) new Uint8Array(this.#values.buffer, at).set(value);
    else throw new TypeError(`argument ${index} of kernel ${this.name} is to be ${type}, got ${typeof value} ${String(value)}`);
  }

  #raiseShared(bytes: number): void {
    this.#device.driver.call('functionSet', this.#handle, functionAttributes.maxDynamicSharedBytes, bytes);
    this.#sharedLimit = bytes;
  }
}

function launchConfig({ stream }: Device): DataView {
  const buffer = new ArrayBuffer(CONFIG.bytes);
  const view = new DataView(buffer);
  view.setBigUint64(CONFIG.stream, stream, true);
  view.setBigUint64(CONFIG.attributes, koffi.address(buffer) + BigInt(CONFIG.attribute), true);
  view.setUint32(CONFIG.numAttributes, 1, true);
  view.setUint32(CONFIG.attribute, PROGRAMMATIC_SERIALIZATION, true);
  view.setUint32(CONFIG.value, 1, true);
  return view;
}

function isInt32(value: KernelArgument): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= -INT32_END && value < INT32_END;
}

function layOut(signature: readonly ParameterType[]): { offsets: number[]; bytes: number } {
  let bytes = 0;
  const offsets = signature.map((type) => {
    const at = Math.ceil(bytes / alignments[type]) * alignments[type];
    bytes = at + sizes[type];
    return at;
  });
  return { offsets, bytes: Math.max(bytes, 8) };
}
