/**
 * One CUDA device: its driver context, its properties, one stream on which the engine does everything, events to
 * time it. Knows no kernels. Opened by cuda-engine.ts and by the benchmarks; closes the context it retained.
 */
import { CudaUnavailableError } from './ffi/cuda-error.ts';
import { CAPTURE_THREAD_LOCAL, deviceAttributes, Driver, EVENT_NO_TIMING, resultCodes, STREAM_NON_BLOCKING } from './ffi/driver.ts';
import type { SearchSettings } from './ffi/library-search.ts';

/** Compute capability times ten: 80 is Ampere, 90 Hopper. */
const LEAST_CAPABILITY = 80;
/** sm_90a names the instructions that only Hopper has; later chips have sets of their own. */
const HOPPER = 90;
const EARLY_CAPABILITY = 90;
const NAME_BYTES = 256;

export interface DeviceProperties {
  readonly name: string;
  /** 90 for compute capability 9.0. */
  readonly capability: number;
  /** As compilers name it: 'sm_90a'. */
  readonly architecture: string;
  readonly multiprocessors: number;
  readonly l2Bytes: number;
  /** The most that one block may have. */
  readonly sharedBytes: number;
}

export class Device {
  readonly driver: Driver;
  readonly properties: DeviceProperties;
  readonly launchesEarly: boolean;
  /** The engine's one stream: work on it runs in the order in which it was issued. */
  readonly stream: bigint;
  readonly #ordinal: number;

  /** Throws CudaUnavailableError when there is no driver, no device, or only an old one. */
  static open(settings: SearchSettings, { early = false } = {}): Device {
    return new Device(Driver.open(settings), early);
  }

  /** `early`: a kernel may begin before the one ahead has ended, where the chip can; each waits itself for what it reads. */
  constructor(driver: Driver, early: boolean) {
    this.driver = driver;
    this.#ordinal = firstDevice(driver);
    this.properties = readProperties(driver, this.#ordinal);
    const { name, capability } = this.properties;
    this.launchesEarly = early && capability >= EARLY_CAPABILITY;
    if (capability < LEAST_CAPABILITY) {
      throw new CudaUnavailableError(`${name} has compute capability ${capability / 10}; the cuda engine needs ${LEAST_CAPABILITY / 10} or later.`);
    }
    driver.call('contextSet', driver.handle('contextRetain', this.#ordinal));
    this.stream = driver.handle('streamCreate', STREAM_NON_BLOCKING);
  }

  /** Bytes that are free and bytes in all. */
  memory(): { free: number; total: number } {
    const free = new BigUint64Array(1);
    const total = new BigUint64Array(1);
    this.driver.call('memoryInfo', free, total);
    return { free: Number(free[0]!), total: Number(total[0]!) };
  }

  /** Waits until the stream has done all that was issued, on this thread: a step is over in milliseconds. */
  synchronize(): void {
    this.driver.call('streamSynchronize', this.stream);
  }

  /** Milliseconds that the device takes for what `issue` puts on the stream. */
  time(issue: () => void): number {
    const [from, to] = [this.newTimer(), this.newTimer()];
    this.mark(from);
    issue();
    this.mark(to);
    this.driver.call('eventSynchronize', to);
    const milliseconds = this.elapsed(from, to);
    for (const event of [from, to]) this.driver.call('eventDestroy', event);
    return milliseconds;
  }

  /** An event that knows when the stream came to it. */
  newTimer(): bigint {
    return this.driver.handle('eventCreate', 0);
  }

  mark(event: bigint): void {
    this.driver.call('eventRecord', event, this.stream);
  }

  /** Milliseconds between two timers that the stream has come to. */
  elapsed(from: bigint, to: bigint): number {
    const milliseconds = new Float32Array(1);
    this.driver.call('eventElapsed', milliseconds, from, to);
    return milliseconds[0]!;
  }

  /** A marker in the stream that can be waited for. */
  newEvent(): bigint {
    return this.driver.handle('eventCreate', EVENT_NO_TIMING);
  }

  /** What `issue` puts on the stream, as a graph that replays in one call; nothing runs yet. */
  capture(issue: () => void): Graph {
    this.driver.call('captureBegin', this.stream, CAPTURE_THREAD_LOCAL);
    try {
      issue();
    } catch (error) {
      // A capture that failed must end too, or the stream stays unusable.
      const abandoned = new BigUint64Array(1);
      const code = this.driver.attempt('captureEnd', this.stream, abandoned);
      if (code === resultCodes.success && abandoned[0] !== 0n) this.driver.call('graphDestroy', abandoned[0]!);
      throw error;
    }
    const graph = new BigUint64Array(1);
    this.driver.call('captureEnd', this.stream, graph);
    const executable = this.driver.handle('graphInstantiate', graph[0]!, 0n);
    this.driver.call('graphDestroy', graph[0]!);
    return new Graph(this, executable);
  }

  close(): void {
    this.driver.call('streamDestroy', this.stream);
    this.driver.call('contextRelease', this.#ordinal);
  }
}

/** A recorded step. Its arguments are fixed; what varies it reads from device memory. */
export class Graph {
  readonly #device: Device;
  readonly #executable: bigint;

  constructor(device: Device, executable: bigint) {
    this.#device = device;
    this.#executable = executable;
  }

  launch(): void {
    this.#device.driver.call('graphLaunch', this.#executable, this.#device.stream);
  }

  free(): void {
    this.#device.driver.call('graphExecDestroy', this.#executable);
  }
}

function firstDevice(driver: Driver): number {
  const code = driver.attempt('init', 0);
  if (code !== resultCodes.success) {
    throw new CudaUnavailableError(`The CUDA driver (${driver.path}) finds no device it can use: ${driver.errorName(code)}.`);
  }
  if (driver.integer('deviceCount') === 0) {
    throw new CudaUnavailableError(`The CUDA driver (${driver.path}) finds no device; CUDA_VISIBLE_DEVICES may hide them.`);
  }
  return driver.integer('deviceGet', 0);
}

function readProperties(driver: Driver, device: number): DeviceProperties {
  const attribute = (name: keyof typeof deviceAttributes): number => driver.integer('deviceAttribute', deviceAttributes[name], device);
  const name = new Uint8Array(NAME_BYTES);
  driver.call('deviceName', name, NAME_BYTES, device);
  const capability = 10 * attribute('major') + attribute('minor');
  return {
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    capability,
    architecture: capability === HOPPER ? 'sm_90a' : `sm_${capability}`,
    multiprocessors: attribute('multiprocessors'),
    l2Bytes: attribute('l2Bytes'),
    sharedBytes: attribute('sharedBytesPerBlock'),
  };
}
