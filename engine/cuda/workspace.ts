/**
 * Device buffers that a run needs only while it lasts, by name, grown when a run asks for more. Knows no shapes.
 * Owned by cuda-engine.ts. A recorded run holds addresses: `epoch` says when they are no longer true.
 */
import type { Device } from './device.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';

const GROWTH = 1.25;

export class Workspace {
  /** Grows whenever a buffer moved. */
  epoch = 0;
  readonly #device: Device;
  readonly #memory: DeviceMemory;
  readonly #buffers = new Map<string, DeviceBuffer>();

  constructor(device: Device, memory: DeviceMemory) {
    this.#device = device;
    this.#memory = memory;
  }

  /** The address of a buffer of at least `bytes`; what it held is lost when it grows. `cleared`: zeros when new. */
  get(name: string, bytes: number, { cleared = false } = {}): bigint {
    const known = this.#buffers.get(name);
    if (known !== undefined && known.bytes >= bytes) return known.address;
    if (known !== undefined) {
      this.#device.synchronize();
      this.#memory.free(known);
      this.epoch++;
    }
    const buffer = this.#memory.allocate(Math.max(Math.ceil(known === undefined ? bytes : bytes * GROWTH), 256), `the workspace '${name}'`);
    if (cleared) this.#memory.clear(buffer);
    this.#buffers.set(name, buffer);
    return buffer.address;
  }
}
