/**
 * Finds a tokenizer's added tokens in text, so that only what lies between them reaches the model. Follows
 * Hugging Face tokenizers: longest match at the leftmost place, `lstrip`, `rstrip`, `single_word`, and tokens
 * that match in normalised text. Knows no model. Called by tokenizer.ts.
 */
import type { AddedTokenEntry } from './model-files.ts';

/** Text between added tokens, or the id of one; `start` is where it begins. */
export type Section = { readonly text: string; readonly start: number } | { readonly id: number };

export class AddedTokens {
  readonly #raw: TokenFinder;
  readonly #rawPlain: TokenFinder;
  readonly #normalized: TokenFinder;

  /**
   * Special tokens are always looked for in the text as it was given: a normaliser must not be able to make
   * one out of something else.
   */
  constructor(tokens: readonly AddedTokenEntry[], normalize: (text: string) => string) {
    const isRaw = (token: AddedTokenEntry) => token.special === true || token.normalized === false;
    this.#raw = new TokenFinder(tokens.filter(isRaw));
    this.#rawPlain = new TokenFinder(tokens.filter((token) => isRaw(token) && token.special !== true));
    this.#normalized = new TokenFinder(
      tokens.filter((token) => !isRaw(token)).map((token) => ({ ...token, content: normalize(token.content) })),
    );
  }

  /** Cuts text before normalisation. 'plain' leaves special tokens' texts as ordinary text. */
  splitRaw(text: string, special: 'parse' | 'plain'): Iterable<Section> {
    return (special === 'parse' ? this.#raw : this.#rawPlain).split(text);
  }

  /** Cuts normalised text. */
  splitNormalized(text: string): Iterable<Section> {
    return this.#normalized.split(text);
  }
}

/** The characters of a word, as Rust's \w has them (single_word). */
const WORD = String.raw`[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]`;
const ENDS_IN_WORD = new RegExp(`${WORD}$`, 'u');
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, 'u');
const SPACE_AT_START = /^\p{White_Space}+/u;

class TokenFinder {
  readonly #tokens: ReadonlyMap<string, AddedTokenEntry>;
  readonly #pattern: RegExp | null;

  constructor(tokens: readonly AddedTokenEntry[]) {
    this.#tokens = new Map(tokens.map((token) => [token.content, token]));
    this.#pattern = anyOf([...this.#tokens.keys()]);
  }

  *split(text: string): Generator<Section> {
    let start = 0;
    for (const { index, 0: content } of this.#pattern === null ? [] : text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(content)!;
      if (token.single_word === true && !standsAlone(text, index, content.length)) continue;
      const before = text.slice(start, index);
      const kept = token.lstrip === true ? trimEnd(before) : before;
      if (kept !== '') yield { text: kept, start };
      yield { id: token.id };
      // White space that the token before took may be part of this one: Hugging Face then has both.
      start = Math.max(start, index + content.length);
      if (token.rstrip === true) start += SPACE_AT_START.exec(text.slice(start))?.[0].length ?? 0;
    }
    if (start < text.length) yield { text: start === 0 ? text : text.slice(start), start };
  }
}

/** A pattern that finds any of the texts, the longest first; null when there are none. */
export function anyOf(texts: readonly string[]): RegExp | null {
  const escaped = texts.filter((text) => text !== '').sort((a, b) => b.length - a.length)
    .map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`));
  return escaped.length === 0 ? null : new RegExp(escaped.join('|'), 'g');
}

function standsAlone(text: string, index: number, length: number): boolean {
  return !ENDS_IN_WORD.test(text.slice(Math.max(0, index - 2), index)) && !STARTS_WITH_WORD.test(text.slice(index + length, index + length + 2));
}

/** Without its last white space: one scan from the end, since a pattern anchored there is quadratic on runs. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && /\p{White_Space}/u.test(text[end - 1]!)) end--;
  return text.slice(0, end);
}
