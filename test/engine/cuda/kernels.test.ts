// The kernels without a device: the signatures by which they are launched are those of their sources, and they compile.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CudaUnavailableError } from '../../../engine/cuda/ffi/cuda-error.ts';
import { Nvrtc } from '../../../engine/cuda/ffi/nvrtc.ts';
import { kernelEntries, kernelFiles, kernelSource } from '../../../engine/cuda/kernels.ts';
import { useTemporaryFolders } from '../temporary-folder.ts';

const newFolder = useTemporaryFolders();

/** 'const element* q, int rowStride' -> 'pi' */
function lettersOf(parameters: string): string {
  return parameters.split(',').map((parameter) => {
    if (parameter.includes('*')) return 'p';
    return { int: 'i', int64: 'l', float: 'f' }[/^(?:const )?(\w+)/.exec(parameter.trim())![1]!] ?? '?';
  }).join('');
}

describe.each(Object.entries(kernelEntries))('%s', (name, { file, entry, parameters }) => {
  test('is launched with the parameters that its source declares', () => {
    const { text } = kernelSource(`${file}.cu`);
    const found = new RegExp(`extern "C" __global__ void[^;{]*?\\b${entry ?? name}\\(([^)]*)\\)`).exec(text);
    expect(found).not.toBeNull();
    expect(lettersOf(found![1]!)).toBe(parameters);
  });
});

type Compile = (file: string, options: readonly string[], architecture: string) => void;

/** By NVRTC, else by nvcc; null where neither is found. */
function findCompiler(): Compile | null {
  try {
    const nvrtc = Nvrtc.open({ folder: '', environment: process.env });
    return (file, options, architecture) => { nvrtc.compile(kernelSource(file), [`--gpu-architecture=${architecture}`, '-default-device', '--std=c++17', ...options]); };
  } catch (error) {
    if (!(error instanceof CudaUnavailableError)) throw error;
    return spawnSync('nvcc', ['--version']).error === undefined ? compileByNvcc : null;
  }
}

function compileByNvcc(file: string, options: readonly string[], architecture: string): void {
  const folder = newFolder();
  mkdirSync(folder, { recursive: true });
  const { text, headers } = kernelSource(file);
  for (const [name, header] of [[file, text], ...headers] as const) writeFileSync(join(folder, name), header);
  const target = architecture.replace('sm_', '');
  const { status, stderr } = spawnSync('nvcc', ['--cubin', `-gencode=arch=compute_${target},code=sm_${target}`, '--std=c++17', ...options, '-o', join(folder, 'out.cubin'), join(folder, file)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

const compile = findCompiler();
if (compile === null) process.stderr.write('skipped: compiling the CUDA kernels needs NVRTC or nvcc; neither was found\n');

describe.skipIf(compile === null)('compile for every chip and type', () => {
  const hopperOnly = (file: string): boolean => file.endsWith('_hopper.cu') || file === 'linear_fp8.cu';
  test.each(kernelFiles().flatMap((file) => [
    ...(hopperOnly(file) ? [] : [[file, ['-DHEAD_DIM=16'], 'sm_80']]), [file, ['-DHEAD_DIM=128', '-DELEMENT_FP16=1'], 'sm_90a'],
  ] as [string, string[], string][]).concat([...['linear_few.cu', 'linear_stream.cu'].flatMap((file): [string, string[], string][] => [[file, ['-DWEIGHT_FP8=1', '-DINPUT_TILES=2'], 'sm_90a'], [file, ['-DELEMENT_FP16=1', '-DWEIGHT_FP8=1', '-DFP8_CONVERT=1'], 'sm_90a'], [file, ['-DWEIGHT_FP8=1'], 'sm_80']]), ['linear_fp8.cu', ['-DELEMENT_FP16=1', '-DROWS=32'], 'sm_90a'], ...['rope_write.cu', 'attend.cu', 'attend_token.cu', 'turn_pages.cu', 'widen_pages.cu'].flatMap((file): [string, string[], string][] => [
    [file, ['-DHEAD_DIM=96', '-DKV_INT8=1'], 'sm_80'], [file, ['-DHEAD_DIM=128', '-DELEMENT_FP16=1', '-DKV_FP8=1'], 'sm_90a'],
  ])]))('%s with %j for %s', (file, options, architecture) => {
    compile!(file, options, architecture);
  });
});
