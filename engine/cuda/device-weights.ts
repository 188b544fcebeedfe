/**
 * The weights of a model in device memory, as the products want them: layers that read one input lie one after
 * the other and are one matrix. Knows no arithmetic. Built by cuda-engine.ts, read by cuda-ops.ts.
 */
import { decoderTensors } from '../model/decoder-tensors.ts';
import type { WeightName } from '../model/ops.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { Weights } from '../model/weights.ts';
import { aligned, Arena, type DeviceBuffer, type DeviceMemory } from './device-memory.ts';
import type { ElementType, MatrixProducts } from './matrix-products.ts';

/** What is needed of a checkpoint; a benchmark gives random numbers instead. */
export type WeightSource = Pick<Weights, 'has' | 'shape' | 'half'>;

/** One matrix of one or several linear layers. */
export interface LinearWeight {
  /** Of the element type; E4M3 bytes where there are scales. [columns, inner] */
  readonly weight: bigint;
  /** Of fp8 weights, one for each output; null else. [columns] float32 */
  readonly scales: bigint | null;
  /** null where no layer of it has a bias. [columns] */
  readonly bias: bigint | null;
  /** Outputs, padded to COLUMN_UNIT. */
  readonly columns: number;
  readonly inner: number;
}

/** Products want rows of whole 16-byte units: a vocabulary of any size is padded with zero rows. */
const COLUMN_UNIT = 8;
const ELEMENT_BYTES = 2;

export class DeviceWeights {
  readonly #vectors = new Map<string, bigint>();
  readonly #linears = new Map<string, LinearWeight>();

  /** `quantize`: makes fp8 of a matrix where it lies for the moment; null keeps 16 bits. Table and head always keep them. */
  constructor(spec: ModelSpec, { weights, memory, type, quantize }: { weights: WeightSource; memory: DeviceMemory; type: ElementType; quantize: Quantize | null }) {
    const groups = linearGroups(spec);
    const vectors = decoderTensors(spec).filter(({ name, shape, optional }) => shape.length === 1 && !optional && name.includes('norm')).map(({ name }) => name);
    const isFp8 = (names: readonly string[]): boolean => quantize !== null && names[0]!.includes('.layers.');
    const bytesOf = (names: readonly string[]): number => matrixBytes(names, weights, isFp8(names));
    const total = groups.reduce((sum, names) => sum + bytesOf(names), 0) + vectors.reduce((sum, name) => sum + aligned(weights.shape(name)[0]! * ELEMENT_BYTES), 0);
    const arena = new Arena(memory.allocate(total, 'the weights'));
    const put = (name: string, to: DeviceBuffer, offset: number): void => {
      const bytes = weights.shape(name).reduce((a, b) => a * b, ELEMENT_BYTES);
      memory.writePieces(to, { offset, bytes }, (target, done) => {
        weights.half(name, type, new Uint16Array(target.buffer, target.byteOffset, target.length / ELEMENT_BYTES), done / ELEMENT_BYTES);
      });
    };
    for (const name of vectors) {
      const buffer = arena.take(weights.shape(name)[0]! * ELEMENT_BYTES);
      put(name, buffer, 0);
      this.#vectors.set(name, buffer.address);
    }
    for (const names of groups) this.#linears.set(names.join(), loadGroup(names, { weights, memory, arena, put, quantize: isFp8(names) ? quantize : null }));
  }

  /** A norm's weight. [its width] */
  vector(name: WeightName): bigint {
    return found(this.#vectors.get(`${name}.weight`), name);
  }

  /** The matrix of these layers together. */
  linear(layers: readonly WeightName[]): LinearWeight {
    return found(this.#linears.get(layers.join()), layers.join(', '));
  }

  register(products: MatrixProducts): void {
    for (const { weight, scales, columns, inner } of this.#linears.values()) if (scales === null) products.register(weight, columns, inner);
  }
}

/** Makes E4M3 bytes and one scale for each row out of a matrix. */
export type Quantize = (matrix: { from: bigint; rows: number; inner: number }, to: { bytes: bigint; scales: bigint }) => void;

interface Loading {
  readonly quantize: Quantize | null;
  readonly weights: WeightSource;
  readonly memory: DeviceMemory;
  readonly arena: Arena;
  readonly put: (name: string, to: DeviceBuffer, offset: number) => void;
}

function loadGroup(names: readonly string[], { weights, memory, arena, put, quantize }: Loading): LinearWeight {
  const inner = weights.shape(`${names[0]!}.weight`)[1]!;
  const outputs = names.map((name) => weights.shape(`${name}.weight`)[0]!);
  const columns = padded(outputs.reduce((a, b) => a + b, 0));
  const bytes = columns * inner * ELEMENT_BYTES;
  const matrix = quantize === null ? arena.take(bytes) : memory.allocate(bytes, 'a matrix to quantize');
  memory.clear(matrix);
  const hasBias = names.some((name) => weights.has(`${name}.bias`));
  const bias = hasBias ? arena.take(columns * ELEMENT_BYTES) : null;
  if (bias !== null) memory.clear(bias);
  let first = 0;
  names.forEach((name, i) => {
    put(`${name}.weight`, matrix, first * inner * ELEMENT_BYTES);
    if (bias !== null && weights.has(`${name}.bias`)) put(`${name}.bias`, bias, first * ELEMENT_BYTES);
    first += outputs[i]!;
  });
  const rest = { bias: bias?.address ?? null, columns, inner };
  if (quantize === null) return { weight: matrix.address, scales: null, ...rest };
  const [small, scales] = [arena.take(columns * inner), arena.take(columns * 4)];
  quantize({ from: matrix.address, rows: columns, inner }, { bytes: small.address, scales: scales.address });
  memory.free(matrix);
  return { weight: small.address, scales: scales.address, ...rest };
}

/** As decoder.ts asks for them. */
function linearGroups({ layers, tiedHead }: ModelSpec): readonly (readonly string[])[] {
  const ofLayer = (layer: number): string[][] => {
    const [attention, mlp] = [`model.layers.${layer}.self_attn`, `model.layers.${layer}.mlp`];
    return [
      [`${attention}.q_proj`, `${attention}.k_proj`, `${attention}.v_proj`], [`${attention}.o_proj`],
      [`${mlp}.gate_proj`, `${mlp}.up_proj`], [`${mlp}.down_proj`],
    ];
  };
  const groups = Array.from({ length: layers }, (_, layer) => ofLayer(layer)).flat();
  return [['model.embed_tokens'], ...groups, ...(tiedHead ? [] : [['lm_head']])];
}

function matrixBytes(names: readonly string[], weights: WeightSource, isFp8: boolean): number {
  const inner = weights.shape(`${names[0]!}.weight`)[1]!;
  const columns = padded(names.reduce((sum, name) => sum + weights.shape(`${name}.weight`)[0]!, 0));
  const hasBias = names.some((name) => weights.has(`${name}.bias`));
  const ofWeights = isFp8 ? aligned(columns * inner) + aligned(columns * 4) : aligned(columns * inner * ELEMENT_BYTES);
  return ofWeights + (hasBias ? aligned(columns * ELEMENT_BYTES) : 0);
}

function padded(columns: number): number {
  return Math.ceil(columns / COLUMN_UNIT) * COLUMN_UNIT;
}

function found<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new RangeError(`the decoder asks for ${name}, which was not loaded`);
  return value;
}
