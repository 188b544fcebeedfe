/**
 * Needle documents: a stretch of a book with 16 sentences that each name a number, one of which is asked
 * for (the multi-key task of RULER, arXiv 2404.06654). Pure: a seed and a length in characters give the
 * text; needle.ts fits the length in tokens.
 */
import { cutBook } from './prompts.ts';
import { pickOne, seededRandom, type Random } from './random.ts';

export const NEEDLES = 16;

const ADJECTIVES = (
  'amber ancient bitter brave bright calm clever cold crimson curious distant dusty eager early empty faded fierce gentle golden grand green hidden hollow humble ' +
  'keen lonely lost lucky mellow mighty misty modest narrow noble patient plain proud quiet rapid rare restless rough round royal rusty secret shallow silent silver ' +
  'simple sleepy smooth solemn steady steep stern strange sudden swift tender tiny vast warm wild wise young'
).split(' ');
const NOUNS = (
  'anchor apple arrow badger barrel basket beacon bell bridge brook bucket cabin candle canyon captain carpet castle cedar chapel cherry circle clock cloud cottage ' +
  'crown dagger diamond dragon drum eagle falcon farmer feather fiddle forest fountain fox garden goose guitar hammer harbor hazel heron hill honey island jacket ' +
  'jewel kettle ladder lantern lemon lion marble meadow melon mirror mountain oak orchard otter palace parrot pebble pillow planet prince rabbit raven ribbon river ' +
  'saddle sailor salmon shepherd shield spider statue table teapot temple thunder tiger tower trumpet turtle valley village violin wagon whistle willow window wizard wolf'
).split(' ');

export interface NeedleDocument {
  /** The whole user message: introduction, book with needles, question. */
  readonly content: string;
  /** The seven digits that answer it. */
  readonly value: string;
}

export function writeNeedleDocument(book: string, seed: number, fillerChars: number): NeedleDocument {
  const random = seededRandom(seed);
  const needles = drawNeedles(random);
  const asked = pickOne(random, needles);
  const from = book.indexOf('\n\n', random.below(book.length)) + 2;
  const places = needles.map(() => random.next()).sort((a, b) => a - b).map((share) => Math.floor(share * fillerChars));
  const text = insertAtParagraphEnds(cutBook(book, from, fillerChars), places, needles.map(sentenceOf));
  return {
    content: `${INTRODUCTION}\n\n${text}\n\nWhat is the special magic number for ${asked.key} mentioned in the provided text?`,
    value: asked.value,
  };
}

const INTRODUCTION =
  'A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.';

interface Needle {
  readonly key: string;
  readonly value: string;
}

function sentenceOf({ key, value }: Needle): string {
  return `One of the special magic numbers for ${key} is: ${value}.`;
}

/** Distinct keys; numbers of seven digits. [NEEDLES] */
function drawNeedles(random: Random): Needle[] {
  const keys = new Set<string>();
  while (keys.size < NEEDLES) keys.add(`${pickOne(random, ADJECTIVES)}-${pickOne(random, NOUNS)}`);
  return [...keys].map((key) => ({ key, value: String(1_000_000 + random.below(9_000_000)) }));
}

/** Each sentence goes to the end of the paragraph that holds its place; places ascend. */
export function insertAtParagraphEnds(text: string, places: readonly number[], sentences: readonly string[]): string {
  const pieces: string[] = [];
  let from = 0;
  places.forEach((place, i) => {
    const end = text.indexOf('\n\n', Math.max(place, from));
    const to = end === -1 ? text.length : end;
    pieces.push(text.slice(from, to), ` ${sentences[i]!}`);
    from = to;
  });
  return pieces.join('') + text.slice(from);
}
