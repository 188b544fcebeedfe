/**
 * Remembers the token ids of long sections: a conversation about a document sends the document again with every
 * turn. Bounded by bytes; the least recently used go first. Keeps no text, only its digest, and knows nothing of
 * encoding. tokenizer.ts asks it, in each thread that encodes.
 */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { IdBuffer } from './section-encoder.ts';

/** Shorter sections (UTF-16 units) are encoded about as fast as they are looked up. */
export const MIN_CACHED_CHARS = 16_384;
/** Eight million tokens: some ten documents of a few megabytes. */
const MAX_BYTES = 32 * 2 ** 20;
/** Of an entry, beside its ids. */
const ENTRY_BYTES = 256;

/** Text without special tokens; `first`: it stands at the very start of what is encoded. Both decide its ids. */
export interface LongSection { readonly text: string; readonly first: boolean }

export class SectionCache {
  readonly #ids: LRUCache<string, Int32Array>;

  constructor(maxBytes = MAX_BYTES) {
    this.#ids = new LRUCache({ maxSize: maxBytes, sizeCalculation: (ids) => ids.byteLength + ENTRY_BYTES });
  }

  /** Memory that the remembered ids take, roughly. */
  get bytes(): number {
    return this.#ids.calculatedSize;
  }

  /** Appends the ids of a section to `out`: those remembered, or those that `encode` appends, which then are. */
  appendTo(section: LongSection, out: IdBuffer, encode: () => void): void {
    const key = keyOf(section);
    const known = this.#ids.get(key);
    if (known !== undefined) {
      out.append(known, 0, known.length);
      return;
    }
    const start = out.length;
    encode();
    this.#ids.set(key, out.toIds(start));
  }
}

/** As UTF-16, since all lone surrogates are one in UTF-8. Collisions would mix up texts of strangers: no weaker hash. */
function keyOf({ text, first }: LongSection): string {
  return createHash('sha256').update(text, 'utf16le').digest('base64') + (first ? '^' : '');
}
