/**
 * Writes safetensors files for tests: whole ones, and their raw parts so that a test can spoil one. Knows the
 * format only, written apart from the reader. Called by tests and tiny-model.ts.
 */
import { writeFileSync } from 'node:fs';

export type FloatType = 'F32' | 'F16' | 'BF16';

export interface TensorToWrite {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export type Header = Record<string, { dtype: string; shape: readonly number[]; data_offsets: readonly [number, number] }>;

export function writeSafetensors(path: string, tensors: readonly TensorToWrite[], type: FloatType = 'F32'): void {
  const parts = tensors.map(({ values }) => encode(values, type));
  const header: Header = {};
  let offset = 0;
  tensors.forEach(({ name, shape }, i) => {
    const end = offset + parts[i]!.byteLength;
    header[name] = { dtype: type, shape, data_offsets: [offset, end] };
    offset = end;
  });
  writeFileSync(path, assemble(header, Buffer.concat(parts)));
}

/** Length, header, data; whatever they say. */
export function assemble(header: unknown, data: Uint8Array): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

/** Round towards zero: exact for values that the type has. */
function encode(values: Float32Array, type: FloatType): Buffer {
  if (type === 'F32') return Buffer.from(Float32Array.from(values).buffer);
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  const halves = Uint16Array.from(bits, (pattern) => (type === 'BF16' ? pattern >>> 16 : toFloat16(pattern)));
  return Buffer.from(halves.buffer);
}

/** Normal float16 numbers and zero only. */
function toFloat16(pattern: number): number {
  const exponent = ((pattern >>> 23) & 255) - 127 + 15;
  const sign = (pattern >>> 16) & 0x8000;
  return exponent <= 0 ? sign : sign | (exponent << 10) | ((pattern >>> 13) & 1023);
}
