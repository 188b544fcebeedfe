/**
 * Prompts of wanted lengths, cut from a public-domain book. Every prompt begins with its own number, so
 * no two share a prefix and a prefix cache cannot flatter the figures. Knows characters, not tokens: the
 * caller says how many characters a token of the served model has.
 */
import { readFileSync } from 'node:fs';
import type { Random } from './random.ts';

export interface LengthClass {
  readonly tokens: number;
  /** Share of the requests, 0..1; shares of a mix add up to 1. */
  readonly share: number;
}

/** '512:0.8,16384:0.2' -> classes by ascending length. Shares are weights: they are scaled to add up to 1. */
export function parseMix(text: string): LengthClass[] {
  const classes = text.split(',').map((part) => {
    const [tokens, share] = part.split(':').map(Number);
    if (!Number.isInteger(tokens) || tokens! < 1 || !(Number.isFinite(share ?? 1) && (share ?? 1) > 0)) {
      throw new RangeError(`--mix: '${part}' is not TOKENS:SHARE, as in 512:0.8,16384:0.2`);
    }
    return { tokens: tokens!, share: share ?? 1 };
  });
  const sum = classes.reduce((total, { share }) => total + share, 0);
  return classes.map(({ tokens, share }) => ({ tokens, share: share / sum })).sort((a, b) => a.tokens - b.tokens);
}

/** The class of each request, drawn by share. [count] */
export function drawClasses(classes: readonly LengthClass[], count: number, random: Random): LengthClass[] {
  return Array.from({ length: count }, () => {
    let left = random.next();
    return classes.find(({ share }) => (left -= share) < 0) ?? classes.at(-1)!;
  });
}

export function readBook(): string {
  return readFileSync(new URL('texts/pride-and-prejudice.txt', import.meta.url), 'utf8');
}

/** `length` characters of the book from `from` on, beginning again at its end. */
export function cutBook(book: string, from: number, length: number): string {
  let text = book.slice(from % book.length, (from % book.length) + length);
  while (text.length < length) text += book.slice(0, length - text.length);
  return text;
}

export interface PromptOrder {
  readonly tokens: number;
  readonly charsPerToken: number;
  /** Told apart from all other prompts by this; goes first into the text. */
  readonly label: string;
}

export function writePrompt(book: string, order: PromptOrder, random: Random): string {
  const head = `Text ${order.label}.\n\n`;
  const length = Math.round(order.tokens * order.charsPerToken) - head.length;
  return head + cutBook(book, random.below(book.length), Math.max(0, length));
}
