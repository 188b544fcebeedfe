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
    const { file, entry } = this.#get(name);
    switch (entry.type) {
      case 'F32': return new Float32Array(file.read(entry));
      case 'BF16': return bfloat16ToFloat32(new Uint16Array(file.read(entry)));
      case 'F16':
        this.#halfTable ??= float16Table();
        return float16ToFloat32(new Uint16Array(file.read(entry)), this.#halfTable);
      default: throw new ModelFileError(file.path, `tensor ${name} has type ${entry.type}; supported are F32, F16 and BF16`);
    }
  }

  /** How the file holds the tensor: 'F32', 'F16' or 'BF16'. */
  type(name: string): string {
    return this.#get(name).entry.type;
  }

  /** The tensor in 16 bits, as the file has it where the types are one, else rounded. A fresh array. [product of shape] */
  half(name: string, type: 'bf16' | 'fp16'): Uint16Array {
    const { file, entry } = this.#get(name);
    if (entry.type === (type === 'bf16' ? 'BF16' : 'F16')) return new Uint16Array(file.read(entry));
    return type === 'bf16' ? float32ToBfloat16(this.float32(name)) : float32ToFloat16(this.float32(name));
  }

  close(): void {
    for (const file of this.#checkpoint.files) file.close();
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
