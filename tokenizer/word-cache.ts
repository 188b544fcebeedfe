/**
 * Remembers the token ids of short words, bounded in words and in ids; when full it starts again, since ordinary
 * text fills it anew within milliseconds. Knows nothing of merging. Used by byte-level-bpe.ts.
 */
import type { IdBuffer } from './section-encoder.ts';

const MAX_WORDS = 1 << 16;
const MAX_IDS = 1 << 19;
/** Words of at most this many UTF-16 units are remembered: at most 144 bytes of UTF-8, so at most 144 ids. */
export const MAX_CACHED_CHARS = 48;
/** V8 copies a slice shorter than this; a longer one keeps the whole document that it was cut from alive. */
const MIN_SLICE_CHARS = 13;

export class WordCache {
  /** word -> start * 256 + length of its ids. */
  readonly #spans = new Map<string, number>();
  readonly #ids = new Int32Array(MAX_IDS);
  #used = 0;

  /** Appends the ids of a word to `out`; false when it is not known. */
  appendTo(word: string, out: IdBuffer): boolean {
    const span = this.#spans.get(word);
    if (span === undefined) return false;
    out.append(this.#ids, span >>> 8, span & 255);
    return true;
  }

  /** Remembers a word of at most MAX_CACHED_CHARS with the first `length` of `ids`. */
  remember(word: string, ids: Int32Array, length: number): void {
    if (this.#spans.size === MAX_WORDS || this.#used + length > MAX_IDS) {
      this.#spans.clear();
      this.#used = 0;
    }
    for (let i = 0; i < length; i++) this.#ids[this.#used + i] = ids[i]!;
    this.#spans.set(word.length < MIN_SLICE_CHARS ? word : copyOf(word), this.#used * 256 + length);
    this.#used += length;
  }
}

function copyOf(word: string): string {
  return Buffer.from(word, 'utf16le').toString('utf16le');
}
