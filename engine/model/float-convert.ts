/**
 * Bytes of the floating-point types of checkpoints -> float32. Knows no files. Called by weights.ts.
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
