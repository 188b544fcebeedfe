/**
 * Where the last few tokens of a text stood before: chains of positions by the hash of three tokens, as in LZ77. A text
 * that grows is indexed once; a lookup walks the most recent places only, so that neither takes time by the length of
 * the text. Knows token ids. Owned by ngram-drafter.ts.
 */

/** Tokens that must agree for a place to be found at all. */
export const GRAM = 3;
/** Tokens compared backwards: beyond this the later of two places is as good as the longer match. */
const MAX_MATCH = 32;
/** Places looked at, latest first. */
const MAX_PLACES = 64;
const NONE = -1;

export class NgramIndex {
  /** Latest end (exclusive) of a gram with this hash, or NONE. [power of two] */
  #heads = new Int32Array(0);
  /** The one before, by end. [capacity] */
  #previous = new Int32Array(0);
  /** Grams that end at or before this are in. */
  #indexed = 0;

  /** Takes in text[0, end), whose tokens are final. */
  extend(text: Int32Array, end: number): void {
    if (end > this.#previous.length) this.#grow(text, end);
    for (let at = Math.max(this.#indexed + 1, GRAM); at <= end; at++) this.#insert(text, at);
    this.#indexed = Math.max(this.#indexed, end);
  }

  /**
   * The end (exclusive) of the earlier place whose tokens agree longest with the end of `text`, the latest of equals;
   * null where not even GRAM tokens agree.
   */
  find(text: Int32Array): number | null {
    const { length } = text;
    if (length < GRAM || this.#heads.length === 0) return null;
    let best: number | null = null;
    let longest = GRAM - 1;
    let place = this.#heads[this.#slot(text, length)]!;
    for (let looked = 0; place !== NONE && looked < MAX_PLACES && longest < MAX_MATCH; place = this.#previous[place - 1]!, looked++) {
      if (place >= length) continue;
      const match = matchLength(text, place);
      if (match > longest) [best, longest] = [place, match];
    }
    return best;
  }

  #insert(text: Int32Array, end: number): void {
    const slot = this.#slot(text, end);
    this.#previous[end - 1] = this.#heads[slot]!;
    this.#heads[slot] = end;
  }

  #slot(text: Int32Array, end: number): number {
    const hash = Math.imul(Math.imul(Math.imul(text[end - 3]!, 0x9e3779b1) ^ text[end - 2]!, 0x85ebca6b) ^ text[end - 1]!, 0xc2b2ae35);
    return (hash ^ (hash >>> 15)) & (this.#heads.length - 1);
  }

  /** Twice the room, and the slots in proportion: all grams are put in anew. */
  #grow(text: Int32Array, end: number): void {
    const capacity = 2 ** Math.ceil(Math.log2(end + 1024));
    this.#previous = new Int32Array(capacity).fill(NONE);
    this.#heads = new Int32Array(capacity).fill(NONE);
    const known = Math.min(this.#indexed, text.length);
    for (let at = GRAM; at <= known; at++) this.#insert(text, at);
  }
}

/** Tokens that agree, going back from `place` and from the end of the text. */
function matchLength(text: Int32Array, place: number): number {
  let match = 0;
  while (match < MAX_MATCH && match < place && text[place - 1 - match] === text[text.length - 1 - match]) match++;
  return match;
}
