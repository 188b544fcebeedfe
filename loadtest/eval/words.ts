/** The words of the evaluation's documents: keys and variable names drawn at random, and the words of a book. Pure. */
import { ADJECTIVES, NOUNS } from '../needle-documents.ts';
import { pickOne, type Random } from '../random.ts';

/** `count` distinct keys, such as 'silver-lantern'. */
export function drawKeys(random: Random, count: number): string[] {
  return drawDistinct(count, () => `${pickOne(random, ADJECTIVES)}-${pickOne(random, NOUNS)}`);
}

/** `count` distinct numbers of `digits` digits. */
export function drawNumbers(random: Random, count: number, digits: number): string[] {
  const least = 10 ** (digits - 1);
  return drawDistinct(count, () => String(least + random.below(9 * least)));
}

const CAPITALS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

/** `count` distinct names of five capitals. */
export function drawVariables(random: Random, count: number): string[] {
  return drawDistinct(count, () => Array.from({ length: 5 }, () => CAPITALS[random.below(CAPITALS.length)]!).join(''));
}

function drawDistinct(count: number, draw: () => string): string[] {
  const drawn = new Set<string>();
  while (drawn.size < count) drawn.add(draw());
  return [...drawn];
}

/** Distinct lower-case words of a book, of 4 to 9 letters, in the order in which they first stand there. */
export function wordsOf(book: string): string[] {
  return [...new Set(book.match(/(?<=[ \n])[a-z]{4,9}(?=[ \n.,;])/g) ?? [])];
}

/** Fisher and Yates, in place. */
export function shuffle<Value>(random: Random, values: Value[]): Value[] {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [values[i], values[j]] = [values[j]!, values[i]!];
  }
  return values;
}
