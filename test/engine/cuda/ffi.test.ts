// The calls of the CUDA libraries, against libraries that keep device memory on the host: checks, errors, ownership.
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Compiler } from '../../../engine/cuda/compiler.ts';
import { Device } from '../../../engine/cuda/device.ts';
import { Arena, DeviceMemory } from '../../../engine/cuda/device-memory.ts';
import { CublasLt } from '../../../engine/cuda/ffi/cublas-lt.ts';
import { CudaError, CudaUnavailableError, DeviceMemoryError, KernelCompileError } from '../../../engine/cuda/ffi/cuda-error.ts';
import { findLibrary, searchFolders } from '../../../engine/cuda/ffi/library-search.ts';
import { Nvrtc } from '../../../engine/cuda/ffi/nvrtc.ts';
import { SharedLibrary } from '../../../engine/cuda/ffi/shared-library.ts';
import { KernelModule, type Kernel } from '../../../engine/cuda/kernel.ts';
import { MatrixProducts } from '../../../engine/cuda/matrix-products.ts';
import { UnsupportedModelError } from '../../../engine/engine.ts';
import { useTemporaryFolders } from '../temporary-folder.ts';
import { bfloat16, float32 } from './bfloat16.ts';
import { buildFakeCuda } from './fake-cuda.ts';

const newFolder = useTemporaryFolders();
const fake = buildFakeCuda();
afterAll(() => { fake?.remove(); });

describe('where libraries are looked for', () => {
  test('the named folder, LD_LIBRARY_PATH, the toolkit, Python environments, in this order', () => {
    const [own, loader, toolkit, python] = [newFolder(), newFolder(), newFolder(), newFolder()];
    const wheel = join(python, 'lib/python3.12/site-packages/nvidia/cu13/lib');
    for (const folder of [join(toolkit, 'lib64'), wheel]) mkdirSync(folder, { recursive: true });
    const environment = { LD_LIBRARY_PATH: `${loader}:/nowhere`, CUDA_HOME: toolkit, VIRTUAL_ENV: python };
    const folders = searchFolders({ folder: own, environment });
    expect([own, loader, '/nowhere', join(toolkit, 'lib64'), wheel].map((folder) => folders.indexOf(folder))).toEqual([0, 1, 2, 3, folders.indexOf(wheel)]);
    expect(folders.indexOf(wheel)).toBeGreaterThan(3);
    // A name of which this machine's own toolkit has none.
    writeFileSync(join(wheel, 'libelsewhere.so.12'), '');
    writeFileSync(join(wheel, 'libelsewhere.so.13'), '');
    writeFileSync(join(wheel, 'libelsewhere-builtins.so.13.0'), '');
    expect(findLibrary('libelsewhere', { folder: own, environment }).path).toBe(join(wheel, 'libelsewhere.so.13'));
    writeFileSync(join(own, 'libelsewhere.so'), '');
    expect(findLibrary('libelsewhere', { folder: own, environment }).path).toBe(join(own, 'libelsewhere.so'));
  });

  test('a library that is not there is refused with every place and the option that helps', () => {
    const folder = newFolder();
    const open = () => CublasLt.open({ folder, environment: { CUDA_HOME: '/nowhere/cuda' } });
    if (findLibrary('libcublasLt', { folder, environment: {} }).path !== null) return;
    expect(open).toThrow(UnsupportedModelError);
    expect(open).toThrow(/^libcublasLt\.so, the CUDA matrix products, was not found; looked into .*longspan.*\/nowhere\/cuda\/lib64.*--cuda-libraries names the folder/);
  });

  test('a file that is no library is refused with the reason', () => {
    const folder = newFolder();
    writeFileSync(join(folder, 'libnvrtc.so.13'), 'text');
    expect(() => Nvrtc.open({ folder, environment: {} })).toThrow(/was not found \(Failed to load shared library/);
  });
});

describe.skipIf(fake === null)('calls', () => {
  const { settings, folder } = fake ?? { settings: { folder: '', environment: {} }, folder: '' };

  function withDevice(use: (device: Device, memory: DeviceMemory) => void): void {
    const device = Device.open(settings);
    const memory = new DeviceMemory(device);
    try {
      use(device, memory);
    } finally {
      memory.close();
      device.close();
    }
    expect(new SharedLibrary(join(folder, 'libcuda.so.1')).function('int fake_live()')()).toBe(0);
  }

  function axpyOf(device: Device): Kernel {
    return new KernelModule(device, new Uint8Array(8)).kernel('axpy', ['pointer', 'pointer', 'float32', 'int32', 'int64']);
  }

  test('a device is opened, described and given back', () => {
    withDevice((device, memory) => {
      expect(device.properties).toMatchObject({ name: 'Fake GPU', capability: 90, architecture: 'sm_90a', multiprocessors: 4 });
      const before = device.memory();
      memory.allocate(1 << 20, 'a test');
      expect(before.free - device.memory().free).toBe(1 << 20);
    });
  });

  test.each([
    ['FAKE_CUDA_DEVICES', '-1', /finds no device it can use: CUDA_ERROR_NO_DEVICE\.$/],
    ['FAKE_CUDA_DEVICES', '0', /finds no device; CUDA_VISIBLE_DEVICES may hide them\.$/],
    ['FAKE_CUDA_MAJOR', '7', /Fake GPU has compute capability 7; the cuda engine needs 8 or later\.$/],
  ])('with %s = %s there is no device to use', (name, value, message) => {
    const set = new SharedLibrary(join(folder, 'libcuda.so.1')).function('int setenv(const char *name, const char *value, int overwrite)');
    const unset = new SharedLibrary(join(folder, 'libcuda.so.1')).function('int unsetenv(const char *name)');
    set(name, value, 1);
    try {
      expect(() => Device.open(settings)).toThrow(CudaUnavailableError);
      expect(() => Device.open(settings)).toThrow(message);
    } finally {
      unset(name);
    }
  });

  test('bytes go to the device and back, in pieces too, and not past the end of a buffer', () => {
    withDevice((device, memory) => {
      const buffer = memory.allocate(40 << 20, 'a test');
      const source = Uint32Array.from({ length: 10 << 20 }, (_, i) => Math.imul(i, 2654435761));
      memory.write(buffer, source);
      expect(Buffer.compare(Buffer.from(memory.read(buffer)), Buffer.from(source.buffer))).toBe(0);
      memory.write(buffer, Uint8Array.of(1, 2, 3), 5);
      expect([...new Uint8Array(memory.read(buffer, 3, 5))]).toEqual([1, 2, 3]);
      expect(() => { memory.write(buffer, source, 8); }).toThrow(RangeError);
      memory.poison(buffer);
      expect(new Float32Array(memory.read(buffer, 8))).toEqual(Float32Array.of(NaN, NaN));
      memory.free(buffer);
      expect(() => { memory.free(buffer); }).toThrow(/was not allocated here/);
      expect(device.memory().free).toBe(device.memory().total);
    });
  });

  test('too little memory is said with the numbers and what to lower', () => {
    withDevice((_, memory) => {
      memory.allocate(60 << 20, 'weights');
      expect(() => memory.allocate(16 << 20, 'KV memory')).toThrow(DeviceMemoryError);
      expect(() => memory.allocate(16 << 20, 'KV memory')).toThrow(/16 MiB for KV memory were asked for, 4 of 64 MiB are free; lower --kv-tokens/);
    });
  });

  test('an arena cuts aligned parts and ends', () => {
    const arena = new Arena({ address: 4096n, bytes: 1024 });
    expect([arena.take(1).address, arena.take(300).address, arena.take(256).address]).toEqual([4096n, 4352n, 4864n]);
    expect(() => arena.take(1)).toThrow(RangeError);
    arena.reset();
    expect(arena.take(1024).address).toBe(4096n);
  });

  test('a kernel gets its arguments, now and when a graph replays', () => {
    withDevice((device, memory) => {
      const axpy = axpyOf(device);
      const [x, y] = [memory.allocate(16, 'x'), memory.allocate(16, 'y')];
      memory.write(x, Float32Array.of(1, 2, 3, 4));
      memory.write(y, new Float32Array(4));
      axpy.launch({ grid: [1], block: [32] }, y.address, x.address, 0.5, 2, 1);
      expect([...new Float32Array(memory.read(y))]).toEqual([0, 0.5, 1, 0]);
      const graph = device.capture(() => {
        axpy.launch({ grid: [1], block: [32] }, y.address, x.address, 10, 1, 0);
        axpy.launch({ grid: [1], block: [32] }, y.address, x.address, 100, 1, 3);
      });
      expect([...new Float32Array(memory.read(y))]).toEqual([0, 0.5, 1, 0]);
      graph.launch();
      graph.launch();
      expect([...new Float32Array(memory.read(y))]).toEqual([20, 0.5, 1, 200]);
      graph.free();
      expect(device.time(() => undefined)).toBe(1.5);
    });
  });

  test('a failed capture ends, and the stream goes on', () => {
    withDevice((device, memory) => {
      const axpy = axpyOf(device);
      const y = memory.allocate(16, 'y');
      expect(() => device.capture(() => { throw new Error('no'); })).toThrow('no');
      memory.write(y, new Float32Array(4));
      axpy.launch({ grid: [1], block: [32] }, y.address, y.address, 1, 1, 0);
      device.capture(() => undefined).free();
    });
  });

  test('arguments that do not fit the signature never reach the driver', () => {
    withDevice((device, memory) => {
      const axpy = axpyOf(device);
      const y = memory.allocate(16, 'y').address;
      const geometry = { grid: [1], block: [32] } as const;
      expect(() => { axpy.launch(geometry, y, y, 1, 1); }).toThrow(/takes 5 arguments, got 4/);
      expect(() => { axpy.launch(geometry, 1, y, 1, 1, 0); }).toThrow(/argument 0 of kernel axpy is to be pointer, got number 1/);
      expect(() => { axpy.launch(geometry, y, y, 1, 1.5, 0); }).toThrow(/argument 3 of kernel axpy is to be int32, got number 1\.5/);
      expect(() => { axpy.launch(geometry, y, y, 1, 2 ** 31, 0); }).toThrow(/argument 3/);
      expect(() => { axpy.launch(geometry, y, y, 1, 1, 2 ** 60); }).toThrow(/argument 4/);
      expect(() => { axpy.launch({ grid: [1], block: [2048] }, y, y, 1, 0, 0); }).toThrow(/launching axpy with grid 1, block 2048 and 0 shared bytes failed with 1: CUDA_ERROR_INVALID_VALUE/);
      expect(() => new KernelModule(device, new Uint8Array(8)).kernel('nothing', [])).toThrow(/cuModuleGetFunction failed with 500: CUDA_ERROR_NOT_FOUND/);
    });
  });

  test('kernels are compiled once for each source, header, option and architecture', () => {
    const cache = newFolder();
    const nvrtc = Nvrtc.open(settings);
    expect(nvrtc.version).toBe('13.0');
    const source = { name: 'some.cu', text: '#include "a.cuh"', headers: new Map([['a.cuh', 'A']]) };
    const compile = (change: object = {}, defines = {}, architecture = 'sm_90a') => {
      const compiler = new Compiler(nvrtc, { architecture, folder: cache });
      return { cubin: new TextDecoder().decode(compiler.compile({ ...source, ...change }, defines)), numCompiled: compiler.numCompiled };
    };
    const first = compile({}, { HEAD_DIM: 128 });
    expect(first.cubin).toMatch(/^#include "a\.cuh"a\.cuhA--gpu-architecture=sm_90a.*-DHEAD_DIM=128\0$/);
    expect([first, compile({}, { HEAD_DIM: 128 }), compile({}, { HEAD_DIM: 64 }), compile({ text: 'B' }), compile({ headers: new Map([['a.cuh', 'B']]) }), compile({}, {}, 'sm_80')]
      .map(({ numCompiled }) => numCompiled)).toEqual([1, 0, 1, 1, 1, 1]);
    expect(compile({}, { HEAD_DIM: 128 }).cubin).toBe(first.cubin);
    expect(readdirSync(cache).length).toBe(5);
  });

  test('a kernel that does not compile is refused with the log', () => {
    const compiler = new Compiler(Nvrtc.open(settings), { architecture: 'sm_80', folder: newFolder() });
    const compile = () => compiler.compile({ name: 'bad.cu', text: 'syntax error', headers: new Map() }, {});
    expect(compile).toThrow(KernelCompileError);
    expect(compile).toThrow(/^bad\.cu does not compile with --gpu-architecture=sm_80 .*:\nline 1: error: expected a declaration$/);
  });

  test.each([[1, 16, 8, 'float32', false], [5, 8, 24, 'element', true], [300, 24, 16, 'element', false]] as const)('a product of %i rows, %i columns, %i inner as %s, bias %s', (rows, columns, inner, output, withBias) => {
    withDevice((device, memory) => {
      const numbers = (length: number, step: number) => bfloat16(Float32Array.from({ length }, (_, i) => ((i * step) % 17) / 8 - 1));
      const put = (values: Uint16Array) => { const buffer = memory.allocate(values.byteLength, 'a test'); memory.write(buffer, values); return buffer.address; };
      const [x, weight, bias] = [numbers(rows * inner, 5), numbers(columns * inner, 7), numbers(columns, 3)];
      const y = memory.allocate(rows * columns * 4, 'y');
      const products = new MatrixProducts(CublasLt.open(settings), { device, workspace: memory.allocate(256, 'workspace'), type: 'bf16' });
      products.multiply({ x: put(x), rows, weight: put(weight), columns, inner, bias: withBias ? put(bias) : null, y: y.address, output });
      const got = output === 'float32' ? new Float32Array(memory.read(y)) : float32(new Uint16Array(memory.read(y), 0, rows * columns));
      const [fx, fw, fb] = [float32(x), float32(weight), float32(bias)];
      const wanted = Float32Array.from({ length: rows * columns }, (_, at) => {
        const [row, column] = [Math.floor(at / columns), at % columns];
        return fx.subarray(row * inner, (row + 1) * inner).reduce((sum, value, i) => sum + value * fw[column * inner + i]!, withBias ? fb[column]! : 0);
      });
      expect(output === 'float32' ? got : bfloat16(got)).toEqual(output === 'float32' ? wanted : bfloat16(wanted));
      products.close();
    });
  });

  test('a shape for which there is no algorithm is refused with the shape', () => {
    withDevice((device, memory) => {
      const products = new MatrixProducts(CublasLt.open(settings), { device, workspace: memory.allocate(256, 'workspace'), type: 'bf16' });
      expect(() => { products.multiply({ x: 0n, rows: 3, weight: 0n, columns: 5, inner: 7, bias: null, y: 0n, output: 'element' }); }).toThrow(CudaError);
      expect(() => { products.multiply({ x: 0n, rows: 3, weight: 0n, columns: 5, inner: 7, bias: null, y: 0n, output: 'element' }); }).toThrow(/no algorithm for 3 x 7 by 7 x 5/);
      products.close();
    });
  });
});
