/**
 * Where the last few tokens of a text stood before: chains of positions by the hash of a few tokens, as in LZ77. A text
 * that grows is indexed once; a lookup walks the most recent places only, so that neither takes time by the length of
 * the text. Knows token ids. Owned by ngram-drafter.ts.
 */

/** An earlier place whose tokens agree with the end of the text. */
export interface Place {
  /** Position of the token that follows there. */
  readonly end: number;
  /** Tokens that agree, going back from there: as many as are hashed or more, at most MAX_MATCH. */
  readonly match: number;
}

/** Tokens compared backwards. */
export const MAX_MATCH = 32;
/** Places looked at, latest first. */
const MAX_PLACES = 64;
const NONE = -1;

export class NgramIndex {
  /** Tokens that must agree for a place to be found at all. */
  readonly #gram: number;
  /** Latest end (exclusive) of a gram with this hash, or NONE. [power of two] */
  #heads = new Int32Array(0);
  /** The one before, by end. [capacity] */
  #previous = new Int32Array(0);
  /** Grams that end at or before this are in. */
  #indexed = 0;

  constructor(gram: number) {
    this.#gram = gram;
  }

  /** Takes in text[0, end), whose tokens are final. */
  extend(text: Int32Array, end: number): void {
    if (end > this.#previous.length) this.#grow(text, end);
    for (let at = Math.max(this.#indexed + 1, this.#gram); at <= end; at++) this.#insert(text, at);
    this.#indexed = Math.max(this.#indexed, end);
  }

  /** Earlier places that agree with the end of `text`, latest first. */
  places(text: Int32Array): Place[] {
    const { length } = text;
    const found: Place[] = [];
    if (length < this.#gram || this.#heads.length === 0) return found;
    let end = this.#heads[this.#slot(text, length)]!;
    for (let looked = 0; end !== NONE && looked < MAX_PLACES; end = this.#previous[end - 1]!, looked++) {
      const match = end < length ? matchLength(text, end) : 0;
      if (match >= this.#gram) found.push({ end, match });
    }
    return found;
  }

  #insert(text: Int32Array, end: number): void {
    const slot = this.#slot(text, end);
    this.#previous[end - 1] = this.#heads[slot]!;
    this.#heads[slot] = end;
  }

  #slot(text: Int32Array, end: number): number {
    let hash = 0;
    for (let at = end - this.#gram; at < end; at++) hash = Math.imul(hash ^ text[at]!, 0x9e3779b1) ^ (hash >>> 13);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    return (hash ^ (hash >>> 15)) & (this.#heads.length - 1);
  }

  /** Twice the room, and the slots in proportion: all grams are put in anew. */
  #grow(text: Int32Array, end: number): void {
    const capacity = 2 ** Math.ceil(Math.log2(end + 1024));
    this.#previous = new Int32Array(capacity).fill(NONE);
    this.#heads = new Int32Array(capacity).fill(NONE);
    const known = Math.min(this.#indexed, text.length);
    for (let at = this.#gram; at <= known; at++) this.#insert(text, at);
  }
}

/** Tokens that agree, going back from `end` and from the end of the text. */
function matchLength(text: Int32Array, end: number): number {
  let match = 0;
  while (match < MAX_MATCH && match < end && text[end - 1 - match] === text[text.length - 1 - match]) match++;
  return match;
}
