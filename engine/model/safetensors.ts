/**
 * One safetensors file: its header, checked against its size, and the bytes of single tensors, read at their
 * offsets so that no file need fit in memory. Knows no model and converts nothing. Used by weights.ts.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ModelFileError } from './model-file-error.ts';

/** Bytes per element. */
const typeBytes = {
  F64: 8, F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, F8_E5M2: 1,
  I64: 8, I32: 4, I16: 2, I8: 1, U64: 8, U32: 4, U16: 2, U8: 1, BOOL: 1,
} as const;

export type TensorType = keyof typeof typeBytes;

export interface TensorEntry {
  readonly name: string;
  readonly type: TensorType;
  readonly shape: readonly number[];
  /** Of the first byte, in the file. */
  readonly offset: number;
  readonly bytes: number;
}

const LENGTH_BYTES = 8;
/** Limit of the reference implementation: a longer header is a sign of a file that is something else. */
const MAX_HEADER_BYTES = 100_000_000;
/** fs.readSync takes at most 2^31 - 1 bytes. */
const MAX_READ_BYTES = 1 << 30;

export class SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly #descriptor: number;

  /** Opens (following links) and checks the header; throws ModelFileError. */
  constructor(path: string) {
    this.path = path;
    this.#descriptor = openFile(path);
    try {
      this.tensors = this.#readHeader();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The tensor's bytes, little-endian, at offset 0 of their own buffer. [entry.bytes] */
  read(entry: TensorEntry): ArrayBuffer {
    return this.#readBytes(entry.offset, entry.bytes);
  }

  /** Fills the target with the tensor's bytes from `from` on: for tensors that need not be in memory as a whole. */
  readInto(entry: TensorEntry, from: number, target: Uint8Array): void {
    if (from + target.length > entry.bytes) throw new RangeError(`tensor ${entry.name} has ${entry.bytes} bytes, ${from + target.length} are asked for`);
    this.#fill(target, entry.offset + from);
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #readHeader(): ReadonlyMap<string, TensorEntry> {
    const fileBytes = this.#fileBytes();
    if (fileBytes < LENGTH_BYTES) throw this.#wrong(`is truncated: ${fileBytes} bytes cannot hold a safetensors header`);
    const headerBytes = Number(new DataView(this.#readBytes(0, LENGTH_BYTES)).getBigUint64(0, true));
    if (headerBytes > MAX_HEADER_BYTES) throw this.#wrong(`is not a safetensors file: its header would have ${headerBytes} bytes`);
    const start = LENGTH_BYTES + headerBytes;
    if (start > fileBytes) throw this.#wrong(`is truncated: its header ends at byte ${start}, the file at ${fileBytes}`);
    const header = this.#parseJson(this.#readBytes(LENGTH_BYTES, headerBytes));
    const entries = Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, value]) => this.#parseEntry(name, value, start));
    this.#checkLayout(entries, start, fileBytes);
    return new Map(entries.map((entry) => [entry.name, entry]));
  }

  #fileBytes(): number {
    const stat = fstatSync(this.#descriptor);
    if (!stat.isFile()) throw this.#wrong('is not a file');
    return stat.size;
  }

  #parseJson(bytes: ArrayBuffer): object {
    let header: unknown;
    try {
      header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch (error) {
      throw new ModelFileError(this.path, 'is corrupt: its header is not JSON', { cause: error });
    }
    if (typeof header !== 'object' || header === null || Array.isArray(header)) throw this.#wrong('is corrupt: its header is not a JSON object');
    return header;
  }

  #parseEntry(name: string, value: unknown, start: number): TensorEntry {
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
    if (typeof dtype !== 'string' || !isTensorType(dtype)) throw this.#wrong(`tensor ${name} has the unknown type ${JSON.stringify(dtype)}`);
    if (!isCounts(shape)) throw this.#wrong(`tensor ${name} has the malformed shape ${JSON.stringify(shape)}`);
    if (!isCounts(offsets) || offsets.length !== 2) throw this.#wrong(`tensor ${name} has the malformed offsets ${JSON.stringify(offsets)}`);
    const [from, to] = offsets as [number, number];
    const bytes = shape.reduce((product, size) => product * size, typeBytes[dtype]);
    if (to - from !== bytes) throw this.#wrong(`tensor ${name} (${dtype} [${shape.join(', ')}]) needs ${bytes} bytes, its offsets give ${to - from}`);
    return { name, type: dtype, shape, offset: start + from, bytes };
  }

  /** Tensors must lie end to end and fill the file: no overlap, no hole, nothing missing. */
  #checkLayout(entries: readonly TensorEntry[], start: number, fileBytes: number): void {
    let end = start;
    for (const entry of entries.toSorted((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
      if (entry.offset < end) throw this.#wrong(`is corrupt: tensor ${entry.name} overlaps the one before it by ${end - entry.offset} bytes`);
      if (entry.offset > end) throw this.#wrong(`is corrupt: ${entry.offset - end} bytes before tensor ${entry.name} belong to no tensor`);
      end = entry.offset + entry.bytes;
      if (end > fileBytes) throw this.#wrong(`is truncated: tensor ${entry.name} ends at byte ${end}, the file at ${fileBytes}`);
    }
    if (end < fileBytes) throw this.#wrong(`is corrupt: its last ${fileBytes - end} bytes belong to no tensor`);
  }

  #readBytes(offset: number, length: number): ArrayBuffer {
    const target = new Uint8Array(length);
    this.#fill(target, offset);
    return target.buffer;
  }

  #fill(target: Uint8Array, offset: number): void {
    const { length } = target;
    for (let done = 0; done < length;) {
      const read = readSync(this.#descriptor, target, done, Math.min(length - done, MAX_READ_BYTES), offset + done);
      if (read === 0) throw this.#wrong(`is truncated: it ends at byte ${offset + done}, ${length - done} bytes too early`);
      done += read;
    }
  }

  #wrong(what: string): ModelFileError {
    return new ModelFileError(this.path, what);
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw ModelFileError.fromSystem(path, error);
  }
}

function isTensorType(type: string): type is TensorType {
  return Object.hasOwn(typeBytes, type);
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && (item as number) >= 0);
}
