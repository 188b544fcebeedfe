/**
 * The byte-level alphabet of GPT-2 tokenizers: each of the 256 bytes is written as one printable character in
 * vocabularies and merges. Pure tables. Used by vocabulary.ts and byte-level-bpe.ts.
 */

/** byte -> its character; printable Latin-1 stands for itself, the other 68 bytes take U+0100 and up. [256] */
export const CHARACTER_OF_BYTE: readonly string[] = characters();
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = new Map(CHARACTER_OF_BYTE.map((char, byte) => [char, byte]));

/** The bytes that a token of a byte-level vocabulary stands for; a foreign character stands for its own UTF-8. */
export function bytesOfByteLevelToken(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of token) {
    const byte = BYTE_OF_CHARACTER.get(char);
    if (byte === undefined) bytes.push(...Buffer.from(char, 'utf8'));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function characters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(standsForItself(byte) ? byte : next++));
}

function standsForItself(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
}
