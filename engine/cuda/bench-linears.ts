/**
 * Speed of linear layers with few rows (decode) on the shape of Llama-3.1-8B, the fast kernels beside the plain ones, in fp16
 * and with fp8 weights; each is first held against the other. Part of npm run bench:kernels; called by bench-kernels.ts.
 */
import { float16Table, float16ToFloat32 } from '../model/float-convert.ts';
import type { Compiler } from './compiler.ts';
import type { Device } from './device.ts';
import type { DeviceBuffer, DeviceMemory } from './device-memory.ts';
import type { LinearWeight } from './device-weights.ts';
import type { CublasLt } from './ffi/cublas-lt.ts';
import { Kernels } from './kernels.ts';
import { LinearLayers } from './linear-layers.ts';
import { MatrixProducts } from './matrix-products.ts';
import { randomNumbers } from './random-weights.ts';
import { Workspace } from './workspace.ts';

export interface LinearFigure {
  readonly kernel: string;
  readonly shape: string;
  readonly milliseconds: number;
  readonly rate: number;
  readonly unit: 'GB/s';
  /** Against the plain way. */
  readonly error: number;
}

interface Parts {
  readonly device: Device;
  readonly memory: DeviceMemory;
  readonly compiler: Compiler;
  readonly cublasLt: CublasLt;
}

type Shape = readonly [name: string, columns: number, inner: number];

const SHAPES: readonly Shape[] = [['qkv', 6144, 4096], ['o', 4096, 4096], ['gate+up', 28672, 4096], ['down', 4096, 14336]];
const ROWS = [1, 2, 4, 8, 16, 32, 64] as const;
/** Matrices in turn, so that none lies in the cache. */
const COPIES = 6;
const ROUNDS = 4;
const REPEATS = 12;
const MOST_ROWS = ROWS.at(-1)!;
const WIDEST = 28672;

export function linearFigures({ device, memory, compiler, cublasLt }: Parts): LinearFigure[] {
  const space = new Workspace(device, memory);
  const products = new MatrixProducts(cublasLt, { device, workspace: memory.allocate(MatrixProducts.workspaceBytes, 'the workspace of products'), type: 'fp16' });
  const ways = (['plain', 'fast'] as const).map((name) => {
    const fast = name === 'fast';
    const kernels = new Kernels(device, compiler, { type: 'fp16', headDim: 128, hopper: false, fast, fp8: true, sm90: device.properties.architecture === 'sm_90a', kv: 'element' });
    return { name, kernels, linears: new LinearLayers({ kernels, products, workspace: space, fast, multiprocessors: device.properties.multiprocessors, normEps: 1e-5 }) };
  });
  const [x, y] = [memory.allocate(MOST_ROWS * WIDEST * 2, 'rows'), memory.allocate(MOST_ROWS * WIDEST * 2, 'results')];
  memory.repeat(x, randomNumbers('fp16', 1 << 20));
  const figures = [false, true].flatMap((fp8) => SHAPES.flatMap((shape) => {
    const weights = newWeights(memory, shape, fp8);
    if (!fp8) for (const { weight, columns, inner } of weights.each) products.register(weight, columns, inner);
    const found = ROWS.flatMap((rows) => {
      const runs = ways.map(({ name, linears }) => ({ name, ...measure({ device, memory, linears }, weights.each, { x, y, rows }) }));
      const bytes = shape[1] * shape[2] * (fp8 ? 1 : 2);
      return runs.map(({ name, milliseconds, result }): LinearFigure => ({
        kernel: `${shape[0]}, ${fp8 ? 'fp8' : 'fp16'}, ${name}`, shape: `${rows} rows`, milliseconds, rate: bytes / milliseconds / 1e6, unit: 'GB/s', error: relativeError(result, runs[0]!.result),
      }));
    });
    products.forgetWeights();
    for (const buffer of weights.buffers) memory.free(buffer);
    return found;
  }));
  products.close();
  for (const { kernels } of ways) kernels.close();
  return figures;
}

function newWeights(memory: DeviceMemory, [, columns, inner]: Shape, fp8: boolean): { each: LinearWeight[]; buffers: DeviceBuffer[] } {
  const bytes = columns * inner * (fp8 ? 1 : 2);
  const matrices = memory.allocate(COPIES * bytes, 'weights');
  // As E4M3 any bytes will do that have not all bits of the exponent.
  memory.repeat(matrices, fp8 ? randomNumbers('fp16', 1 << 24).map((two) => two & 0xbfbf) : randomNumbers('fp16', 1 << 24));
  const scales = memory.allocate(columns * 4, 'scales');
  memory.write(scales, new Float32Array(columns).fill(1));
  const each = Array.from({ length: COPIES }, (_, i) => ({
    weight: matrices.address + BigInt(i * bytes), scale: 1, scales: fp8 ? scales.address : null, bias: null, columns, inner,
  }));
  return { each, buffers: [matrices, scales] };
}

/** Milliseconds a layer, recorded and replayed, and what the last layer gives. */
function measure(
  { device, memory, linears }: { device: Device; memory: DeviceMemory; linears: LinearLayers }, weights: readonly LinearWeight[],
  { x, y, rows }: { x: DeviceBuffer; y: DeviceBuffer; rows: number },
): { milliseconds: number; result: Float32Array } {
  const issue = (): void => {
    for (const weight of weights) linears.apply({ x: { address: x.address, norm: 0n }, rows, weight, y: y.address, factor: 1 });
  };
  memory.poison(y);
  issue();
  const result = float16ToFloat32(new Uint16Array(memory.read({ address: y.address, bytes: rows * weights[0]!.columns * 2 })), float16Table());
  const graph = device.capture(() => { for (let i = 0; i < ROUNDS; i++) issue(); });
  graph.launch();
  const times = Array.from({ length: REPEATS }, () => device.time(() => { graph.launch(); })).toSorted((a, b) => a - b);
  graph.free();
  return { milliseconds: times[Math.floor(REPEATS / 2)]! / weights.length / ROUNDS, result };
}

/** NaN where an element was left unwritten. */
function relativeError(got: Float32Array, wanted: Float32Array): number {
  let [difference, size] = [0, 0];
  wanted.forEach((value, i) => { difference += (got[i]! - value) ** 2; size += value ** 2; });
  return Math.sqrt(difference / size);
}
