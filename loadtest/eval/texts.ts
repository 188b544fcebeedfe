/**
 * Texts for perplexity: one book after the other, or our own. Reads files; a stretch of text is a function of its
 * number. Called by main.ts.
 */
import { readFileSync } from 'node:fs';
import { readBook } from '../prompts.ts';

/** Plain text is one text; JSON lines are one each, in their field `text`. null takes the book of the load generator. */
export function readTexts(file: string | null): string[] {
  if (file === null) return [readBook()];
  const text = readFileSync(file, 'utf8');
  if (!file.endsWith('.jsonl')) return [text];
  return text.split('\n').filter(Boolean).map((line, i) => {
    const { text: field } = JSON.parse(line) as { text?: unknown };
    if (typeof field !== 'string') throw new Error(`${file}, line ${i + 1}: there is no field 'text'`);
    return field;
  });
}

/** Stretch `index` of `tokens` tokens: from each text in turn, then the next of each. null: there are not so many. */
export function stretchOf(texts: readonly (readonly number[])[], index: number, tokens: number): readonly number[] | null {
  let left = index;
  for (let round = 0; ; round++) {
    const long = texts.filter((text) => text.length >= (round + 1) * tokens);
    if (long.length === 0) return null;
    if (left < long.length) return long[left]!.slice(round * tokens, (round + 1) * tokens);
    left -= long.length;
  }
}
