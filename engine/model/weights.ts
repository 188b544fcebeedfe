/**
 * The weights of a checkpoint by Hugging Face's tensor names, converted as they are asked for.
 * Checks at open that all the decoder needs is there in the right shape. Knows no arithmetic.
 * Opened by engine/create.ts, read by each engine while it builds, then closed.
 */
import { openCheckpoint, type Checkpoint, type LocatedTensor } from './checkpoint.ts';
import { decoderTensors } from './decoder-tensors.ts';
import { bfloat16ToFloat32, float16Table, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './float-convert.ts';
import { ModelFileError } from './model-file-error.ts';
import type { ModelSpec } from './spec.ts';

export class Weights {
  readonly #dir: string;
  readonly #checkpoint: Checkpoint;
  #halfTable: Float32Array | null = null;

  private constructor(dir: string, checkpoint: Checkpoint) {
    this.#dir = dir;
    this.#checkpoint = checkpoint;
  }

  /** The checkpoint in `dir`, checked against `spec`; throws ModelFileError. */
  static async open(dir: string, spec: ModelSpec): Promise<Weights> {
    const weights = new Weights(dir, await openCheckpoint(dir));
    try {
      weights.#check(spec);
    } catch (error) {
      weights.close();
      throw error;
    }
    return weights;
  }

  has(name: string): boolean {
    return this.#find(name) !== null;
  }

  shape(name: string): readonly number[] {
    return this.#get(name).entry.shape;
  }

  /** A fresh array at each call, row-major. Throws ModelFileError if the file is cut short. [product of shape] */
  float32(name: string): Float32Array {
    const located = this.#get(name);
    return this.#toFloat32(located.file.read(located.entry), located);
  }

  /** How the file holds the tensor: 'F32', 'F16' or 'BF16'. */
  type(name: string): string {
    return this.#get(name).entry.type;
  }

  /**
   * Fills the target with the tensor in 16 bits, from element `first` on: as the file has it where the types are
   * one, else rounded. Piece by piece no tensor is in memory as a whole.
   */
  half(name: string, type: 'bf16' | 'fp16', target: Uint16Array, first: number): void {
    const located = this.#get(name);
    const { file, entry } = located;
    if (entry.type === (type === 'bf16' ? 'BF16' : 'F16')) {
      file.readInto(entry, 2 * first, new Uint8Array(target.buffer, target.byteOffset, target.byteLength));
      return;
    }
    const elementBytes = entry.type === 'F32' ? 4 : 2;
    const bytes = new Uint8Array(target.length * elementBytes);
    file.readInto(entry, first * elementBytes, bytes);
    const values = this.#toFloat32(bytes.buffer, located);
    target.set(type === 'bf16' ? float32ToBfloat16(values) : float32ToFloat16(values));
  }

  close(): void {
    for (const file of this.#checkpoint.files) file.close();
  }

  #toFloat32(bytes: ArrayBuffer, { file, entry }: LocatedTensor): Float32Array {
    switch (entry.type) {
      case 'F32': return new Float32Array(bytes);
      case 'BF16': return bfloat16ToFloat32(new Uint16Array(bytes));
      case 'F16':
        this.#halfTable ??= float16Table();
        return float16ToFloat32(new Uint16Array(bytes), this.#halfTable);
      default: throw new ModelFileError(file.path, `tensor ${entry.name} has type ${entry.type}; supported are F32, F16 and BF16`);
    }
  }

  #check(spec: ModelSpec): void {
    for (const { name, shape, optional } of decoderTensors(spec)) {
      const found = this.#find(name);
      if (found === null && optional) continue;
      if (found === null) throw new ModelFileError(this.#dir, `tensor ${name} is missing from the checkpoint`);
      checkTensor(name, shape, found);
    }
  }

  #get(name: string): LocatedTensor {
    const found = this.#find(name);
    if (found === null) throw new ModelFileError(this.#dir, `tensor ${name} is missing from the checkpoint`);
    return found;
  }

  /** Checkpoints saved from the bare decoder lack the prefix 'model.'. */
  #find(name: string): LocatedTensor | null {
    const { tensors } = this.#checkpoint;
    return tensors.get(name) ?? tensors.get(name.replace(/^model\./, '')) ?? null;
  }
}

function checkTensor(name: string, shape: readonly number[], { file, entry }: LocatedTensor): void {
  if (entry.shape.join() !== shape.join()) {
    throw new ModelFileError(file.path, `tensor ${name} has shape [${entry.shape.join(', ')}], config.json asks for [${shape.join(', ')}]`);
  }
  if (!['F32', 'F16', 'BF16'].includes(entry.type)) {
    throw new ModelFileError(file.path, `tensor ${name} has type ${entry.type}; supported are F32, F16 and BF16`);
  }
}
