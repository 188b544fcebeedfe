// Safetensors files: whole ones, and every way in which one may be broken.
import { appendFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ModelFileError } from '../../../engine/model/model-file-error.ts';
import { SafetensorsFile } from '../../../engine/model/safetensors.ts';
import { assemble, writeSafetensors } from '../../safetensors-writer.ts';
import { useTemporaryFolders } from '../temporary-folder.ts';

const newFolder = useTemporaryFolders();

/** Two tensors of 8 and 4 bytes. */
const sound = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] },
  b: { dtype: 'BF16', shape: [1, 2], data_offsets: [8, 12] },
};
const soundFile = assemble(sound, new Uint8Array(12));
const headerBytes = soundFile.length - 8 - 12;

function lengthPrefix(bytes: bigint): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(bytes);
  return prefix;
}

function withTensor(name: 'a' | 'b', change: object): Buffer {
  return assemble({ ...sound, [name]: { ...sound[name], ...change } }, new Uint8Array(12));
}

describe('a sound file', () => {
  test('lists its tensors and gives the bytes of each', () => {
    const path = join(newFolder(), 'model.safetensors');
    writeSafetensors(path, [
      { name: 'x', shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) },
      { name: 'empty', shape: [0, 5], values: new Float32Array(0) },
      { name: 'y', shape: [1], values: Float32Array.of(-0.5) },
    ]);
    const file = new SafetensorsFile(path);
    const read = (name: string) => [...new Float32Array(file.read(file.tensors.get(name)!))];
    expect([...file.tensors.values()].map(({ name, shape, type }) => ({ name, shape, type }))).toEqual([
      { name: 'x', shape: [2, 2], type: 'F32' }, { name: 'empty', shape: [0, 5], type: 'F32' }, { name: 'y', shape: [1], type: 'F32' },
    ]);
    expect([read('x'), read('empty'), read('y')]).toEqual([[1, 2, 3, 4], [], [-0.5]]);
    file.close();
  });

  test('may be larger than an array can be: tensors are read one by one', () => {
    const path = join(newFolder(), 'model.safetensors');
    const large = 5 * 2 ** 30;
    const header = assemble({
      large: { dtype: 'U8', shape: [large], data_offsets: [0, large] },
      small: { dtype: 'F32', shape: [1], data_offsets: [large, large + 4] },
    }, new Uint8Array(0));
    writeFileSync(path, header);
    // A hole: the file system stores no zeros.
    truncateSync(path, header.length + large);
    appendFileSync(path, new Uint8Array(Float32Array.of(1.5).buffer));
    const file = new SafetensorsFile(path);
    expect(new Float32Array(file.read(file.tensors.get('small')!))[0]).toBe(1.5);
    file.close();
  });

  test('is found through a link', () => {
    const dir = newFolder();
    writeFileSync(join(dir, 'blob'), soundFile);
    symlinkSync('blob', join(dir, 'model.safetensors'));
    const file = new SafetensorsFile(join(dir, 'model.safetensors'));
    expect([...file.tensors.keys()]).toEqual(['a', 'b']);
    file.close();
  });
});

describe('a broken file is refused with its name', () => {
  test.each<[string, Uint8Array, RegExp]>([
    ['empty', new Uint8Array(0), /is truncated: 0 bytes cannot hold a safetensors header/],
    ['cut in the header', soundFile.subarray(0, 20), new RegExp(`is truncated: its header ends at byte ${8 + headerBytes}, the file at 20`)],
    ['cut in the data', soundFile.subarray(0, -1), /is truncated: tensor b ends at byte \d+, the file at \d+/],
    ['a header of gigabytes', Buffer.concat([lengthPrefix(1n << 40n), new Uint8Array(100)]), /is not a safetensors file: its header would have 1099511627776 bytes/],
    ['a pickle', Buffer.from('PK\x03\x04 a zip archive, as old checkpoints are'), /is not a safetensors file/],
    ['a header that is not JSON', Buffer.concat([lengthPrefix(4n), Buffer.from('oops')]), /is corrupt: its header is not JSON/],
    ['a header that is not UTF-8', Buffer.concat([lengthPrefix(2n), Buffer.of(0xff, 0xfe)]), /is corrupt: its header is not JSON/],
    ['a header that is a list', assemble([], new Uint8Array(0)), /its header is not a JSON object/],
    ['a tensor that is null', assemble({ a: null }, new Uint8Array(0)), /tensor a has the unknown type/],
    ['an unknown type', withTensor('a', { dtype: 'F31' }), /tensor a has the unknown type "F31"/],
    ['a negative size', withTensor('a', { shape: [-2] }), /tensor a has the malformed shape \[-2\]/],
    ['a fractional size', withTensor('a', { shape: [2.5] }), /tensor a has the malformed shape/],
    ['three offsets', withTensor('a', { data_offsets: [0, 4, 8] }), /tensor a has the malformed offsets/],
    ['offsets the wrong way round', withTensor('a', { data_offsets: [8, 0] }), /tensor a \(F32 \[2\]\) needs 8 bytes, its offsets give -8/],
    ['a shape that needs more bytes', withTensor('a', { shape: [3] }), /tensor a \(F32 \[3\]\) needs 12 bytes, its offsets give 8/],
    ['tensors that overlap', withTensor('b', { data_offsets: [6, 10] }), /tensor b overlaps the one before it by 2 bytes/],
    ['a hole between tensors', assemble({ ...sound, b: { ...sound.b, data_offsets: [10, 14] } }, new Uint8Array(14)), /2 bytes before tensor b belong to no tensor/],
    ['offsets outside the file', withTensor('b', { shape: [1000], data_offsets: [8, 2008] }), /is truncated: tensor b ends at byte/],
    ['bytes left over', assemble(sound, new Uint8Array(20)), /its last 8 bytes belong to no tensor/],
  ])('%s', (_, content, message) => {
    const path = join(newFolder(), 'spoilt.safetensors');
    writeFileSync(path, content);
    expect(() => new SafetensorsFile(path)).toThrow(ModelFileError);
    expect(() => new SafetensorsFile(path)).toThrow(message);
    expect(() => new SafetensorsFile(path)).toThrow(`${path}: `);
  });

  test('a missing file, a link to nothing, a folder', () => {
    const dir = newFolder();
    symlinkSync('nowhere', join(dir, 'link'));
    expect(() => new SafetensorsFile(join(dir, 'none'))).toThrow(/none: does not exist/);
    expect(() => new SafetensorsFile(join(dir, 'link'))).toThrow(/link: does not exist, or is a link to a file that does not/);
    expect(() => new SafetensorsFile(dir)).toThrow(/is not a file/);
  });

  test('a file that is cut short after it was opened', () => {
    const path = join(newFolder(), 'model.safetensors');
    writeFileSync(path, soundFile);
    const file = new SafetensorsFile(path);
    writeFileSync(path, soundFile.subarray(0, -2));
    expect(() => file.read(file.tensors.get('b')!)).toThrow(/is truncated: it ends at byte \d+, 2 bytes too early/);
    file.close();
  });
});
