/**
 * The wire format of Protocol Buffers, writing side, as far as ONNX models need it: varint, fixed 32-bit
 * float, and length-delimited fields (protobuf.dev, "Encoding"). Knows no ONNX. Called by graph.ts.
 */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** Collects the fields of one message; `bytes()` is the encoded message. */
export class MessageWriter {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  /** int64, int32, enum or bool. */
  int(field: number, value: number | bigint): this {
    this.#tag(field, VARINT);
    return this.#append(varint(BigInt.asUintN(64, BigInt(value))));
  }

  float(field: number, value: number): this {
    this.#tag(field, FIXED32);
    return this.#append(new Uint8Array(Float32Array.of(value).buffer));
  }

  bytes(field: number, value: Uint8Array): this {
    this.#tag(field, LENGTH_DELIMITED);
    this.#append(varint(BigInt(value.length)));
    return this.#append(value);
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: MessageWriter): this {
    return this.bytes(field, value.finish());
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let offset = 0;
    for (const part of this.#parts) {
      out.set(part, offset);
      offset += part.length;
    }
    return out;
  }

  #tag(field: number, wireType: number): void {
    this.#append(varint(BigInt((field << 3) | wireType)));
  }

  #append(part: Uint8Array): this {
    this.#parts.push(part);
    this.#length += part.length;
    return this;
  }
}

function varint(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest > 127n) {
    out.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}
