/**
 * Bytes of the floating-point types of checkpoints -> float32, and back. Knows no files. Called by weights.ts.
 */

/** Upper half of a float32 each. [n] -> [n] */
export function bfloat16ToFloat32(source: Uint16Array): Float32Array {
  const bits = new Uint32Array(source.length);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** [n] -> [n]; `table` is float16Table(): a look-up is several times faster than unpacking. */
export function float16ToFloat32(source: Uint16Array, table: Float32Array): Float32Array {
  const target = new Float32Array(source.length);
  for (let i = 0; i < source.length; i++) target[i] = table[source[i]!]!;
  return target;
}

/** The value of every float16 bit pattern (IEEE 754 binary16). [65536] */
export function float16Table(): Float32Array {
  return Float32Array.from({ length: 65536 }, (_, bits) => (bits & 0x8000 ? -1 : 1) * magnitude((bits >> 10) & 31, bits & 1023));
}

function magnitude(exponent: number, fraction: number): number {
  if (exponent === 0) return fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? Infinity : NaN;
  return (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Rounded to nearest, ties to even; NaN stays NaN. [n] -> [n] */
export function float32ToBfloat16(source: Float32Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  const target = new Uint16Array(source.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    const isNan = (word & 0x7fffffff) > 0x7f800000;
    target[i] = isNan ? 0x7fff : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return target;
}

/** Rounded to nearest, ties to even; too large is infinite, as IEEE 754 has it. [n] -> [n] */
export function float32ToFloat16(source: Float32Array): Uint16Array {
  return Uint16Array.from(source, float16Bits);
}

function float16Bits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(size)) return 0x7fff;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  // In units of the last place: at least 1024 for normal numbers, fewer for subnormal ones.
  const units = roundToEven(size * 2 ** (10 - exponent));
  if (units < 1024) return sign | units;
  // Rounding up to 2048 units is the next exponent with fraction 0: the carry does it.
  return sign | (((exponent + 14) << 10) + units);
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
