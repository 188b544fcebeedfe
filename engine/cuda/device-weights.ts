/**
 * The weights of a model in device memory, as the products want them: layers that read one input lie one after
 * the other and are one matrix. Knows no arithmetic. Built by cuda-engine.ts, read by cuda-ops.ts.
 */
import { decoderTensors } from '../model/decoder-tensors.ts';
import type { WeightName } from '../model/ops.ts';
import type { ModelSpec } from '../model/spec.ts';
import type { Weights } from '../model/weights.ts';
import { aligned, Arena, type DeviceBuffer, type DeviceMemory } from './device-memory.ts';
import type { ExactHalves } from './exact-halves.ts';
import type { ElementType, MatrixProducts } from './matrix-products.ts';

/** What is needed of a checkpoint; a benchmark gives random numbers instead. */
export type WeightSource = Pick<Weights, 'has' | 'shape' | 'type' | 'half'>;

/** One matrix of one or several linear layers. */
export interface LinearWeight {
  /** Of the element type; E4M3 bytes where there are scales. [columns, inner] */
  readonly weight: bigint;
  /** What numbers of the matrix are to be multiplied by: a power of two. */
  readonly scale: number;
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

  constructor(spec: ModelSpec, { weights, memory, type, exact, quantize, deltaFactor }: DeviceWeightsOptions) {
    const groups = linearGroups(spec);
    const vectors = decoderTensors(spec).filter(({ name, shape, optional }) => shape.length === 1 && !optional && name.includes('norm')).map(({ name }) => name);
    const isFp8 = (names: readonly string[]): boolean => quantize !== null && names[0] !== 'model.embed_tokens';
    const bytesOf = (names: readonly string[]): number => matrixBytes(names, weights, isFp8(names));
    const total = groups.reduce((sum, names) => sum + bytesOf(names), 0) + vectors.reduce((sum, name) => sum + aligned(weights.shape(name)[0]! * ELEMENT_BYTES), 0);
    const arena = new Arena(memory.allocate(total, 'the weights'));
    const put = (name: string, to: DeviceBuffer, offset: number, as = type): void => {
      const bytes = weights.shape(name).reduce((a, b) => a * b, ELEMENT_BYTES);
      memory.writePieces(to, { offset, bytes }, (target, done) => {
        weights.half(name, as, new Uint16Array(target.buffer, target.byteOffset, target.length / ELEMENT_BYTES), done / ELEMENT_BYTES);
      });
    };
    for (const name of vectors) {
      const buffer = arena.take(weights.shape(name)[0]! * ELEMENT_BYTES);
      put(name, buffer, 0);
      this.#vectors.set(name, buffer.address);
    }
    for (const names of groups) this.#linears.set(names.join(), loadGroup(names, { weights, memory, arena, put, type, exact, deltaFactor, quantize: isFp8(names) ? quantize : null }));
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

/** Makes E4M3 bytes and one scale for each row out of a matrix whose numbers are to be multiplied by `scale`. */
export type Quantize = (matrix: { from: bigint; rows: number; inner: number; scale: number }, to: { bytes: bigint; scales: bigint }) => void;

export interface DeviceWeightsOptions {
  readonly weights: WeightSource;
  readonly memory: DeviceMemory;
  readonly type: ElementType;
  readonly exact: ExactHalves;
  /** Makes fp8 of a matrix where it lies for the moment; null keeps 16 bits. The table always keeps them, and a head that it is. */
  readonly quantize: Quantize | null;
  /** What is added to the residual is stored multiplied by this, and so are the biases in it. */
  readonly deltaFactor: number;
}

interface Loading extends DeviceWeightsOptions {
  readonly arena: Arena;
  readonly put: (name: string, to: DeviceBuffer, offset: number, as?: ElementType) => void;
}

function loadGroup(names: readonly string[], { weights, memory, arena, put, type, exact, deltaFactor, quantize }: Loading): LinearWeight {
  // A table in bf16 goes up as it is and is made fp16 there.
  const isExact = type === 'fp16' && names.every((name) => weights.type(`${name}.weight`) === 'BF16');
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
    put(`${name}.weight`, matrix, first * inner * ELEMENT_BYTES, isExact ? 'bf16' : type);
    if (bias !== null && weights.has(`${name}.bias`)) put(`${name}.bias`, bias, first * ELEMENT_BYTES);
    first += outputs[i]!;
  });
  const scale = isExact ? exact.convert(matrix) : 1;
  if (bias !== null && deltaFactor !== 1 && /\.(o|down)_proj$/.test(names[0]!)) exact.rescale(bias, deltaFactor, type);
  const rest = { bias: bias?.address ?? null, columns, inner };
  if (quantize === null) return { weight: matrix.address, scale, scales: null, ...rest };
  const [small, scales] = [arena.take(columns * inner), arena.take(columns * 4)];
  quantize({ from: matrix.address, rows: columns, inner, scale }, { bytes: small.address, scales: scales.address });
  memory.free(matrix);
  return { weight: small.address, scale: 1, scales: scales.address, ...rest };
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
