/**
 * What the card can do at most, measured: bytes a second of a device copy (read and written), operations a second
 * of a large matrix product. Speeds of the same run are held against these. Called by the benchmarks.
 */
import type { Device } from './device.ts';
import type { DeviceMemory } from './device-memory.ts';
import { CublasLt } from './ffi/cublas-lt.ts';
import { MatrixProducts, type ElementType } from './matrix-products.ts';
import { randomNumbers } from './random-weights.ts';

export interface Ceilings {
  readonly copyBytesPerSecond: number;
  readonly flopsPerSecond: number;
}

const COPY_BYTES = 1 << 30;
const SIDE = 8192;
const REPEATS = 5;

export function measureCeilings(device: Device, memory: DeviceMemory, type: ElementType): Ceilings {
  const [from, to] = [memory.allocate(COPY_BYTES, 'a copy'), memory.allocate(COPY_BYTES, 'a copy')];
  const copy = (): void => { device.driver.call('copyOnDevice', to.address, from.address, COPY_BYTES, device.stream); };
  const workspace = memory.allocate(MatrixProducts.workspaceBytes, 'the workspace of products');
  const products = new MatrixProducts(CublasLt.open({ folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env }), { device, workspace, type });
  for (const buffer of [from, to]) memory.write(buffer, randomNumbers(type, COPY_BYTES / 2));
  const multiply = (): void => {
    products.multiply({
      x: from.address, rows: SIDE, weight: from.address + BigInt(SIDE * SIDE * 2), columns: SIDE, inner: SIDE, bias: null, y: to.address, output: 'element',
    });
  };
  const ceilings = {
    flopsPerSecond: 2 * SIDE ** 3 / medianOf(device, multiply) * 1000,
    copyBytesPerSecond: 2 * COPY_BYTES / medianOf(device, copy) * 1000,
  };
  products.close();
  for (const buffer of [from, to, workspace]) memory.free(buffer);
  return ceilings;
}

/** Milliseconds: the median, after one run that does not count. */
function medianOf(device: Device, issue: () => void): number {
  issue();
  return Array.from({ length: REPEATS }, () => device.time(issue)).toSorted((a, b) => a - b)[Math.floor(REPEATS / 2)]!;
}
