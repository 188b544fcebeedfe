/**
 * Memory on the device and pinned memory of the host. Every buffer says what it is for, so that running out of
 * memory names it, and is freed by the DeviceMemory that gave it. Knows no contents. Owned by cuda-engine.ts.
 */
import koffi from 'koffi';
import type { Device } from './device.ts';
import { CudaError, DeviceMemoryError } from './ffi/cuda-error.ts';
import { resultCodes } from './ffi/driver.ts';

/** A range of device memory. */
export interface DeviceBuffer {
  readonly address: bigint;
  readonly bytes: number;
}

/** Host memory that the device reads and writes by itself. */
export interface PinnedBuffer {
  readonly address: bigint;
  /** The same memory. */
  readonly view: ArrayBuffer;
}

/** Alignment of what is cut from an arena: more than any vector load or tensor map asks for. */
const ALIGNMENT = 256;
const UPLOAD_BYTES = 32 << 20;
const POISON = 0xff;

export class DeviceMemory {
  readonly #device: Device;
  readonly #allocated: bigint[] = [];
  readonly #pinned: bigint[] = [];
  #upload: Upload | null = null;

  constructor(device: Device) {
    this.#device = device;
  }

  /** Throws DeviceMemoryError with the numbers. Not cleared. */
  allocate(bytes: number, what: string): DeviceBuffer {
    const out = new BigUint64Array(1);
    const code = this.#device.driver.attempt('allocate', out, bytes);
    if (code === resultCodes.outOfMemory) throw new DeviceMemoryError({ bytes, what, ...this.#device.memory() });
    if (code !== resultCodes.success) throw new CudaError('cuMemAlloc_v2', code, this.#device.driver.errorName(code));
    this.#allocated.push(out[0]!);
    return { address: out[0]!, bytes };
  }

  /** Pinned memory of the host. */
  pin(bytes: number): PinnedBuffer {
    const address = this.#device.driver.handle('allocateHost', bytes, 0);
    this.#pinned.push(address);
    return { address, view: koffi.view(address, bytes) };
  }

  /** Copies host bytes to the device through a ring of pinned memory; returns when they are in the ring. */
  write(to: DeviceBuffer, source: ArrayBufferView, offset = 0): void {
    const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
    this.writePieces(to, { offset, bytes: bytes.length }, (target, done) => { target.set(bytes.subarray(done, done + target.length)); });
  }

  /** As write, of bytes that `fill` puts into the pinned memory itself, piece by piece: `done` bytes came before. */
  writePieces(to: DeviceBuffer, { offset, bytes }: { offset: number; bytes: number }, fill: (target: Uint8Array, done: number) => void): void {
    this.#upload ??= new Upload(this.#device, [this.pin(UPLOAD_BYTES), this.pin(UPLOAD_BYTES)]);
    checkRange(to, offset, bytes);
    this.#upload.write(to.address + BigInt(offset), bytes, fill);
  }

  /** Fills a buffer with a block, over and over. */
  repeat(to: DeviceBuffer, block: ArrayBufferView): void {
    const first = Math.min(to.bytes, block.byteLength);
    this.write(to, new Uint8Array(block.buffer, block.byteOffset, first));
    for (let done = first; done < to.bytes; done *= 2) {
      const bytes = Math.min(done, to.bytes - done);
      this.#device.driver.call('copyOnDevice', to.address + BigInt(done), to.address, bytes, this.#device.stream);
    }
  }

  /** A copy of device memory, when the stream has done all before it. For tests, and for what is small. */
  read(from: DeviceBuffer, bytes = from.bytes, offset = 0): ArrayBuffer {
    checkRange(from, offset, bytes);
    const target = new Uint8Array(bytes);
    const { driver, stream } = this.#device;
    driver.call('copyToHost', koffi.address(target), from.address + BigInt(offset), bytes, stream);
    this.#device.synchronize();
    return target.buffer;
  }

  /** Fills with bytes that are NaN in every float type: whatever reads it unwritten shows. */
  poison(buffer: DeviceBuffer): void {
    this.fill(buffer, POISON);
  }

  clear(buffer: DeviceBuffer): void {
    this.fill(buffer, 0);
  }

  /** Every byte of it. */
  fill({ address, bytes }: DeviceBuffer, value: number): void {
    this.#device.driver.call('fillBytes', address, value, bytes, this.#device.stream);
  }

  /** Frees one buffer before the rest. */
  free({ address }: DeviceBuffer): void {
    const index = this.#allocated.indexOf(address);
    if (index < 0) throw new RangeError(`device address ${address} was not allocated here`);
    this.#allocated.splice(index, 1);
    this.#device.driver.call('free', address);
  }

  close(): void {
    this.#upload?.close();
    for (const address of this.#allocated.splice(0)) this.#device.driver.call('free', address);
    for (const address of this.#pinned.splice(0)) this.#device.driver.call('freeHost', address);
  }
}

/** Cuts one buffer into aligned parts that live as long as it does. */
export class Arena {
  readonly #buffer: DeviceBuffer;
  #used = 0;

  constructor(buffer: DeviceBuffer) {
    this.#buffer = buffer;
  }

  take(bytes: number): DeviceBuffer {
    const at = this.#used;
    this.#used += aligned(bytes);
    if (this.#used > this.#buffer.bytes) throw new RangeError(`an arena of ${this.#buffer.bytes} bytes cannot give ${bytes} more behind ${at}`);
    return { address: this.#buffer.address + BigInt(at), bytes };
  }

  /** Forgets what was cut: the next parts lie where the first ones lay. */
  reset(): void {
    this.#used = 0;
  }
}

/** What a part of an arena takes. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Two pinned halves in turn: one is filled while the device copies the other. */
class Upload {
  readonly #device: Device;
  readonly #halves: readonly PinnedBuffer[];
  readonly #events: readonly bigint[];
  #next = 0;

  constructor(device: Device, halves: readonly PinnedBuffer[]) {
    this.#device = device;
    this.#halves = halves;
    this.#events = halves.map(() => device.newEvent());
  }

  write(to: bigint, length: number, fill: (target: Uint8Array, done: number) => void): void {
    const { driver, stream } = this.#device;
    for (let done = 0; done < length;) {
      const { address, view } = this.#halves[this.#next]!;
      const event = this.#events[this.#next]!;
      const bytes = Math.min(view.byteLength, length - done);
      driver.call('eventSynchronize', event);
      fill(new Uint8Array(view, 0, bytes), done);
      driver.call('copyToDevice', to + BigInt(done), address, bytes, stream);
      driver.call('eventRecord', event, stream);
      done += bytes;
      this.#next = (this.#next + 1) % this.#halves.length;
    }
  }

  close(): void {
    for (const event of this.#events) this.#device.driver.call('eventDestroy', event);
  }
}

function checkRange({ bytes }: DeviceBuffer, offset: number, length: number): void {
  if (offset < 0 || offset + length > bytes) throw new RangeError(`${length} bytes at ${offset} do not fit into a buffer of ${bytes}`);
}
