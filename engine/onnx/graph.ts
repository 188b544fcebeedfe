/**
 * An ONNX graph under construction: inputs, outputs, constants, nodes. Values are named strings; each method
 * that adds a node returns the names of its outputs. Knows the ONNX file format (onnx.proto), nothing of
 * models. Called by graph-ops.ts and the attention builders; onnx-engine.ts loads what `model()` returns.
 */
import { MessageWriter } from './protobuf.ts';

/** TensorProto.DataType. */
export const ELEMENT = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7, bool: 9, float16: 10 } as const;
export type ElementType = keyof typeof ELEMENT;

/** Name of a value in a graph. '' stands for an optional input that is not given. */
export type Value = string;

type Attribute = number | string | readonly number[] | { readonly float: number } | Graph;
export type Attributes = Readonly<Record<string, Attribute>>;

/** A number is a fixed dimension, a string a free one. */
type Dimension = number | string;

const OPSET = 21;
const IR_VERSION = 10;
const MICROSOFT = 'com.microsoft';

/** Fills a branch of an If node and returns its results. */
type Branch = (branch: Graph) => Value[];

interface Node {
  readonly type: string;
  readonly inputs: readonly Value[];
  readonly attributes: Attributes;
  readonly outputs: readonly Value[];
  readonly domain: string;
}

/** Bytes kept outside the protobuf (which holds 2 GiB at most); the session is given them by path. */
export interface ExternalData {
  readonly path: string;
  readonly data: Uint8Array;
}

export class Graph {
  readonly #nodes: MessageWriter[] = [];
  readonly #initializers: MessageWriter[] = [];
  readonly #inputs: MessageWriter[] = [];
  readonly #outputs: MessageWriter[] = [];
  readonly #constants = new Map<string, Value>();
  readonly #external: ExternalData[] = [];
  readonly #parent: Graph | null;
  readonly #root: Graph;
  #numNames = 0;

  /** A graph with a parent is a branch of an If node: it sees the parent's values and shares its names and constants. */
  constructor(parent: Graph | null = null) {
    this.#parent = parent;
    this.#root = parent === null ? this : parent.#root;
  }

  input(name: Value, type: ElementType, dimensions: readonly Dimension[]): Value {
    this.#inputs.push(valueInfo(name, type, dimensions));
    return name;
  }

  /** Makes `value` an output called `name`; null dimensions leave its rank open. */
  output(name: Value, value: Value, type: ElementType, dimensions: readonly Dimension[] | null): void {
    this.#add({ type: 'Identity', inputs: [value], attributes: {}, outputs: [name], domain: '' });
    this.#outputs.push(valueInfo(name, type, dimensions));
  }

  /** A node whose one result is an output of the graph called `name`. */
  outputOp(name: Value, { type, inputs, attributes = {} }: { type: string; inputs: readonly Value[]; attributes?: Attributes }, shape: { type: ElementType; dimensions: readonly Dimension[] }): Value {
    this.#add({ type, inputs, attributes, outputs: [name], domain: '' });
    this.#outputs.push(valueInfo(name, shape.type, shape.dimensions));
    return name;
  }

  /** One output. */
  op(type: string, inputs: readonly Value[], attributes: Attributes = {}): Value {
    return this.ops(type, 1, inputs, attributes)[0]!;
  }

  /** Several outputs. */
  ops(type: string, numOutputs: number, inputs: readonly Value[], attributes: Attributes = {}): Value[] {
    const outputs = Array.from({ length: numOutputs }, () => this.#name());
    this.#add({ type, inputs, attributes, outputs, domain: '' });
    return outputs;
  }

  /** An operator of the com.microsoft domain (ONNX Runtime's ContribOperators.md). */
  contrib(type: string, inputs: readonly Value[], attributes: Attributes = {}): Value {
    return this.contribs(type, [true], inputs, attributes)[0]!;
  }

  /** Several outputs; `wanted[i] = false` leaves an optional output out (its name is ''). */
  contribs(type: string, wanted: readonly boolean[], inputs: readonly Value[], attributes: Attributes = {}): Value[] {
    const outputs = wanted.map((want) => (want ? this.#name() : ''));
    this.#add({ type, inputs, attributes, outputs, domain: MICROSOFT });
    return outputs;
  }

  /** Runs one of two branches (If); each returns one value for each of `types`. */
  branch(condition: Value, types: readonly ElementType[], branches: { then: Branch; otherwise: Branch }): Value[] {
    const attributes = { then_branch: this.#build(types, branches.then), else_branch: this.#build(types, branches.otherwise) };
    return this.ops('If', types.length, [condition], attributes);
  }

  /** A 1-D int64 constant (shapes, axes), shared by its contents. */
  int64(...values: number[]): Value {
    return this.#shared(`int64:${values.join()}`, 'int64', [values.length], BigInt64Array.from(values, BigInt));
  }

  /** A scalar constant, shared by its value. */
  scalar(type: 'float32' | 'uint8' | 'int8', value: number): Value {
    const data = type === 'float32' ? Float32Array.of(value) : type === 'uint8' ? Uint8Array.of(value) : Int8Array.of(value);
    return this.#shared(`${type}:${value}`, type, [], data);
  }

  /** An int8 constant, shared by its shape and contents. */
  bytes(dimensions: readonly number[], data: Int8Array): Value {
    return this.#shared(`int8:${dimensions.join('x')}:${data.join()}`, 'int8', dimensions, data);
  }

  constant(type: ElementType, dimensions: readonly number[], data: ArrayBufferView): Value {
    const name = this.#name();
    this.#root.#initializers.push(tensor(name, type, dimensions).bytes(9, bytesOf(data)));
    return name;
  }

  /** A constant whose bytes stay outside the protobuf: weights. */
  weight(name: string, type: ElementType, dimensions: readonly number[], data: ArrayBufferView): Value {
    const bytes = bytesOf(data);
    const location: [string, string][] = [['location', name], ['offset', '0'], ['length', String(bytes.length)]];
    const proto = tensor(name, type, dimensions);
    for (const [key, value] of location) proto.message(13, new MessageWriter().string(1, key).string(2, value));
    this.#root.#initializers.push(proto.int(14, 1));
    this.#root.#external.push({ path: name, data: bytes });
    return name;
  }

  get external(): readonly ExternalData[] {
    return this.#root.#external;
  }

  /** The encoded ModelProto. */
  model(): Uint8Array {
    const opsets = [['', OPSET], [MICROSOFT, 1]] as const;
    const model = new MessageWriter().int(1, IR_VERSION).message(7, this.#proto());
    for (const [domain, version] of opsets) model.message(8, new MessageWriter().string(1, domain).int(2, version));
    return model.finish();
  }

  #build(types: readonly ElementType[], fill: Branch): Graph {
    const branch = new Graph(this);
    const values = fill(branch);
    if (values.length !== types.length) throw new RangeError(`a branch returns ${values.length} values, wanted ${types.length}`);
    values.forEach((value, i) => { branch.output(branch.#name(), value, types[i]!, null); });
    return branch;
  }

  #proto(): MessageWriter {
    const proto = new MessageWriter();
    for (const node of this.#nodes) proto.message(1, node);
    proto.string(2, this.#parent === null ? 'decoder' : 'branch');
    for (const initializer of this.#initializers) proto.message(5, initializer);
    for (const input of this.#inputs) proto.message(11, input);
    for (const output of this.#outputs) proto.message(12, output);
    return proto;
  }

  #add({ type, inputs, attributes, outputs, domain }: Node): void {
    const node = new MessageWriter();
    for (const input of inputs) node.string(1, input);
    for (const output of outputs) node.string(2, output);
    node.string(3, `${type}_${this.#name()}`).string(4, type);
    for (const [name, value] of Object.entries(attributes)) node.message(5, attribute(name, value));
    if (domain !== '') node.string(7, domain);
    this.#nodes.push(node);
  }

  #shared(key: string, type: ElementType, dimensions: readonly number[], data: ArrayBufferView): Value {
    const constants = this.#root.#constants;
    const known = constants.get(key);
    if (known !== undefined) return known;
    const name = this.constant(type, dimensions, data);
    constants.set(key, name);
    return name;
  }

  #name(): Value {
    return `%${this.#root.#numNames++}`;
  }

  /** GraphProto of a branch, for the attribute of an If node. */
  branchProto(): MessageWriter {
    return this.#proto();
  }
}

/** AttributeProto: the field and the type number depend on the kind of value. */
function attribute(name: string, value: Attribute): MessageWriter {
  const proto = new MessageWriter().string(1, name);
  if (typeof value === 'number') return proto.int(3, value).int(20, 2);
  if (typeof value === 'string') return proto.string(4, value).int(20, 3);
  if (value instanceof Graph) return proto.message(6, value.branchProto()).int(20, 5);
  if ('float' in value) return proto.float(2, value.float).int(20, 1);
  for (const item of value) proto.int(8, item);
  return proto.int(20, 7);
}

/** ValueInfoProto; null dimensions mean unknown rank. */
function valueInfo(name: Value, type: ElementType, dimensions: readonly Dimension[] | null): MessageWriter {
  const tensorType = new MessageWriter().int(1, ELEMENT[type]);
  if (dimensions !== null) tensorType.message(2, tensorShape(dimensions));
  return new MessageWriter().string(1, name).message(2, new MessageWriter().message(1, tensorType));
}

function tensorShape(dimensions: readonly Dimension[]): MessageWriter {
  const shape = new MessageWriter();
  for (const dimension of dimensions) {
    const proto = new MessageWriter();
    shape.message(1, typeof dimension === 'number' ? proto.int(1, dimension) : proto.string(2, dimension));
  }
  return shape;
}

function tensor(name: string, type: ElementType, dimensions: readonly number[]): MessageWriter {
  const proto = new MessageWriter();
  for (const dimension of dimensions) proto.int(1, dimension);
  return proto.int(2, ELEMENT[type]).string(8, name);
}

function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
