/**
 * Keeps special tokens out of what people write. Before a chat template is rendered, every occurrence of a special
 * token's text inside the messages is replaced by a private mark; the rendered text is encoded with specials
 * parsed, and only then are the marks turned back into text. Knows no template. Called by chat-template.ts.
 */
import { anyOf } from './added-tokens.ts';
import type { Guard } from './tokenizer.ts';

/** U+FDD0 and U+FDD1 are noncharacters, which no text should hold; `seal` makes sure that these marks are not in it. */
const OPEN = '\ufdd0';
const CLOSE = '\ufdd1';

/** Values whose strings are safe to render, what takes their marks out again, and a mark for the caller's own use. */
export interface Sealed<T> { readonly value: T; readonly guard: Guard; readonly endMark: string }

export class ContentGuard {
  readonly #specials: readonly string[];
  readonly #pattern: RegExp | null;
  /** What a special token may begin with and end with: cut-off ones at the edge of a text could meet their other half. */
  readonly #heads: ReadonlySet<string>;
  readonly #tails: ReadonlySet<string>;
  readonly #maxChars: number;

  constructor(specials: readonly string[]) {
    this.#specials = specials;
    this.#pattern = anyOf(specials);
    this.#maxChars = Math.max(0, ...specials.map((special) => special.length));
    this.#heads = new Set(specials.flatMap((special) => cuts(special).map((at) => special.slice(0, at))));
    this.#tails = new Set(specials.flatMap((special) => cuts(special).map((at) => special.slice(at))));
  }

  /** The same JSON value with marks in its strings, at any depth. Names of properties are left as they are. */
  seal<T>(value: T): Sealed<T> {
    const nonce = unusedNonce(value);
    const mark = (content: number | string) => `${OPEN}${nonce}:${content}${CLOSE}`;
    const marks = new RegExp(`${OPEN}${nonce}:(\\d*)${CLOSE}`, 'g');
    return {
      value: mapStrings(value, (text) => this.#hide(text, mark)) as T,
      endMark: mark('end'),
      guard: {
        reveal: (text) => text.includes(OPEN) ? text.replace(marks, (_, index: string) => index === '' ? '' : this.#specials[Number(index)]!) : text,
      },
    };
  }

  #hide(text: string, mark: (content: number | string) => string): string {
    if (this.#pattern === null) return text;
    const hidden = text.replace(this.#pattern, (special) => mark(this.#specials.indexOf(special)));
    return this.#hideEdges(hidden, mark(''));
  }

  /** Templates may trim a text, so its edges are where its white space ends. */
  #hideEdges(text: string, mark: string): string {
    const bare = text.trim();
    const start = text.length - text.trimStart().length;
    const end = start + bare.length;
    const lengths = Array.from({ length: this.#maxChars }, (_, i) => i + 1);
    const tail = lengths.some((length) => this.#tails.has(bare.slice(0, length))) ? mark : '';
    const head = lengths.some((length) => this.#heads.has(bare.slice(-length))) ? mark : '';
    return tail === '' && head === '' ? text : text.slice(0, start) + tail + bare + head + text.slice(end);
  }
}

/** Where a text can be cut in two. */
function cuts(text: string): number[] {
  return Array.from({ length: text.length - 1 }, (_, i) => i + 1);
}

/** The least number for which no string in the value holds a mark. */
function unusedNonce(value: unknown): number {
  const texts: string[] = [];
  mapStrings(value, (text) => {
    if (text.includes(OPEN)) texts.push(text);
    return text;
  });
  let nonce = 0;
  while (texts.some((text) => text.includes(`${OPEN}${nonce}:`))) nonce++;
  return nonce;
}

function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, map));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapStrings(item, map)]));
}
