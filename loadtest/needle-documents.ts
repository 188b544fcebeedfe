/**
 * Needle documents: a stretch of a book with 16 sentences that each name a number, one of which is asked
 * for (the multi-key task of RULER, arXiv 2404.06654). Put together from token ids as the bundled model's
 * training was: each part tokenised by itself, needles where a paragraph begins. Pure; needle-tests.ts
 * tokenises the parts.
 */
import { cutBook } from './prompts.ts';
import { pickOne, seededRandom, type Random } from './random.ts';

export const NEEDLES = 16;

export const ADJECTIVES = (
  'amber ancient bitter brave bright calm clever cold crimson curious distant dusty eager early empty faded fierce gentle golden grand green hidden hollow humble ' +
  'keen lonely lost lucky mellow mighty misty modest narrow noble patient plain proud quiet rapid rare restless rough round royal rusty secret shallow silent silver ' +
  'simple sleepy smooth solemn steady steep stern strange sudden swift tender tiny vast warm wild wise young'
).split(' ');
export const NOUNS = (
  'anchor apple arrow badger barrel basket beacon bell bridge brook bucket cabin candle canyon captain carpet castle cedar chapel cherry circle clock cloud cottage ' +
  'crown dagger diamond dragon drum eagle falcon farmer feather fiddle forest fountain fox garden goose guitar hammer harbor hazel heron hill honey island jacket ' +
  'jewel kettle ladder lantern lemon lion marble meadow melon mirror mountain oak orchard otter palace parrot pebble pillow planet prince rabbit raven ribbon river ' +
  'saddle sailor salmon shepherd shield spider statue table teapot temple thunder tiger tower trumpet turtle valley village violin wagon whistle willow window wizard wolf'
).split(' ');

export interface Needle {
  readonly key: string;
  readonly value: string;
}

/** What a seed decides, before any text is tokenised. */
export interface NeedlePlan {
  /** In the order in which they stand in the text. [NEEDLES] */
  readonly needles: readonly Needle[];
  readonly asked: Needle;
  /** Where in the book the text begins, 0..1. */
  readonly from: number;
  /** Where in the text each needle stands, 0..1, ascending. [NEEDLES] */
  readonly places: readonly number[];
}

export function planNeedles(seed: number): NeedlePlan {
  const random = seededRandom(seed);
  const needles = drawNeedles(random);
  return {
    needles,
    asked: pickOne(random, needles),
    from: random.next(),
    places: needles.map(() => random.next()).sort((a, b) => a - b),
  };
}

/** Distinct keys; numbers of seven digits. [NEEDLES] */
function drawNeedles(random: Random): Needle[] {
  const keys = new Set<string>();
  while (keys.size < NEEDLES) keys.add(`${pickOne(random, ADJECTIVES)}-${pickOne(random, NOUNS)}`);
  return [...keys].map((key) => ({ key, value: String(1_000_000 + random.below(9_000_000)) }));
}

const INTRODUCTION =
  'A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.';

/** The texts around the book, in the chat format of the bundled model, and the sentences that go into it. */
export function partsOf(plan: NeedlePlan): { opening: string; closing: string; sentences: string[] } {
  return {
    opening: `<|im_start|>user\n${INTRODUCTION}\n\n`,
    closing: `\n\n${questionOf(plan)}<|im_end|>\n<|im_start|>assistant\n`,
    sentences: plan.needles.map(({ key, value }) => ` One of the special magic numbers for ${key} is: ${value}.`),
  };
}

function questionOf({ asked }: NeedlePlan): string {
  return `What is the special magic number for ${asked.key} mentioned in the provided text?`;
}

/** A book in tokens. */
export interface TokenizedBook {
  readonly ids: readonly number[];
  /** Whether a line ends with this token. [ids] */
  readonly endsLine: readonly boolean[];
}

export interface TokenizedParts {
  readonly opening: readonly number[];
  readonly closing: readonly number[];
  /** [NEEDLES] */
  readonly sentences: readonly (readonly number[])[];
}

/** A prompt of exactly `tokens` tokens. Throws RangeError when the needles alone are longer. */
export function assemble(book: TokenizedBook, plan: NeedlePlan, parts: TokenizedParts, tokens: number): number[] {
  const sentenceTokens = parts.sentences.reduce((sum, sentence) => sum + sentence.length, 0);
  const room = tokens - parts.opening.length - parts.closing.length - sentenceTokens;
  if (room < 0) throw new RangeError(`${tokens} tokens are too short for a needle document: its needles and question take ${tokens - room}`);
  const start = Math.floor(plan.from * book.ids.length);
  const at = (i: number): number => (start + i) % book.ids.length;
  const text = Array.from({ length: room }, (_, i) => book.ids[at(i)]!);
  const places = snapToLines(plan.places.map((share) => Math.floor(share * room)), room, (i) => book.endsLine[at(i)]!);
  return [...parts.opening, ...insertAll(text, places, parts.sentences), ...parts.closing];
}

/** Moves each place behind the end of a line, no two to the same one; to the end of the text when lines run out. */
export function snapToLines(places: readonly number[], length: number, endsLine: (i: number) => boolean): number[] {
  let last = 0;
  return places.map((place) => {
    let to = Math.max(place, last + 1);
    while (to < length && !endsLine(to - 1)) to++;
    return (last = Math.min(to, length));
  });
}

/** inserts[i] before text[places[i]]; places ascend. */
export function insertAll(text: readonly number[], places: readonly number[], inserts: readonly (readonly number[])[]): number[] {
  const pieces = places.map((place, i) => [...text.slice(places[i - 1] ?? 0, place), ...inserts[i]!]);
  return [...pieces.flat(), ...text.slice(places.at(-1) ?? 0)];
}

/**
 * The same document as one chat message, with each needle at the end of the paragraph that holds its place, as a
 * user would write it. Its tokens differ from those of `assemble` around the needles, and so does what a small
 * model makes of it.
 */
export function writeNeedleDocument(book: string, seed: number, fillerChars: number): { content: string; value: string } {
  const plan = planNeedles(seed);
  const from = book.indexOf('\n\n', Math.floor(plan.from * book.length)) + 2;
  const text = cutBook(book, from, fillerChars);
  const places = plan.places.map((share) => text.indexOf('\n\n', Math.floor(share * fillerChars))).map((place) => (place === -1 ? text.length : place));
  const pieces = partsOf(plan).sentences.map((sentence, i) => text.slice(places[i - 1] ?? 0, places[i]) + sentence);
  const question = questionOf(plan);
  return { content: `${INTRODUCTION}\n\n${pieces.join('')}${text.slice(places.at(-1))}\n\n${question}`, value: plan.asked.value };
}
