/**
 * What heads are measured on: stretches of a book with sentences hidden in them, questions of several kinds about them
 * and the right answers (tasks of RULER, arXiv 2404.06654, and quoting), so that heads that look things up have
 * something to look up. Text only; tokens.ts makes tokens of it. A seed gives the same document always.
 */

/** What a head may be needed for: to answer questions, and to go on with the text. */
export const KINDS = ['needle', 'multi-key', 'multi-value', 'multi-query', 'variable-tracking', 'quote', 'continuation'] as const;
export type Kind = typeof KINDS[number];

export interface Question {
  readonly kind: Kind;
  readonly text: string;
  /** What the model should say. */
  readonly answer: string;
  /** What of the answer has to be looked up, in the order in which it stands there. */
  readonly values: readonly string[];
}

/** Texts as a person would send them: `text`, and one of the questions after it. */
export interface Document {
  readonly text: string;
  readonly questions: readonly Question[];
}

const KEYS = 16;
const VALUES_OF_ONE_KEY = 4;
const KEYS_OF_ONE_QUERY = 4;
const VARIABLES = 5;
const QUOTED_WORDS = 60;
/** Words of a quoted passage that the question gives. */
const GIVEN_WORDS = 6;
const ADJECTIVES = ['amber', 'brave', 'calm', 'distant', 'early', 'fierce', 'gentle', 'hollow', 'keen', 'lucky', 'misty', 'noble', 'plain', 'quiet', 'rusty', 'silver'];
const NOUNS = ['anchor', 'basket', 'candle', 'dragon', 'eagle', 'fountain', 'garden', 'hammer', 'island', 'kettle', 'lantern', 'meadow', 'otter', 'pebble', 'river', 'window'];
const CAPITALS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
const NUMBER_INTRODUCTION = 'A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.';
const CHAIN_INTRODUCTION = 'Memorize and track the chain(s) of variable assignment hidden in the following text.';
const INTRODUCTION = 'Here is a text.';

type Random = () => number;

interface Needle {
  readonly key: string;
  readonly value: string;
}

/** What is hidden in a text, in its order there, and what is asked about it. */
interface Hidden {
  readonly introduction: string;
  readonly sentences: readonly string[];
  readonly questions: readonly Question[];
}

/** In turn, by the seed: documents that differ in what is hidden in them. */
const CONTENTS: readonly ((filler: string, random: Random) => Hidden)[] = [numbersIn, chainIn, passageIn];
export const NUM_CONTENTS = CONTENTS.length;

/** `fillerChars` of the book, from a place that the seed decides, with something hidden in it. */
export function writeDocument(book: string, seed: number, fillerChars: number): Document {
  const random = randomFrom(seed);
  const filler = cut(book, below(random, book.length), fillerChars);
  const { introduction, sentences, questions } = CONTENTS[seed % NUM_CONTENTS]!(filler, random);
  return { text: `${introduction}\n\n${hide(filler, sentences, random)}`, questions };
}

/** 16 keys, one of which has four numbers; asked for are another one, the one with four, four others at once. */
function numbersIn(_filler: string, random: Random): Hidden {
  const [many, ...others] = drawKeys(random);
  const singles = others.map((key): Needle => ({ key, value: drawNumber(random, 7) }));
  const multiple = Array.from({ length: VALUES_OF_ONE_KEY }, (): Needle => ({ key: many!, value: drawNumber(random, 7) }));
  const needles = shuffled([...singles, ...multiple], random);
  const [asked, ...more] = shuffled(singles, random);
  const several = more.slice(0, KEYS_OF_ONE_QUERY);
  return {
    introduction: NUMBER_INTRODUCTION,
    sentences: needles.map(sentenceOf),
    questions: [
      aboutOne('multi-key', asked!),
      aboutSeveral('multi-value', many!, needles.filter(({ key }) => key === many)),
      aboutSeveral('multi-query', listed(several.map(({ key }) => key)), several),
    ],
  };
}

/** A variable is given a number, and four others one after the other the variable before. */
function chainIn(_filler: string, random: Random): Hidden {
  const names = Array.from({ length: VARIABLES }, () => Array.from({ length: 5 }, () => CAPITALS[below(random, CAPITALS.length)]!).join(''));
  const number = drawNumber(random, 5);
  return {
    introduction: CHAIN_INTRODUCTION,
    sentences: names.map((name, i) => ` VAR ${name} = ${i === 0 ? number : `VAR ${names[i - 1]!}`}.`),
    questions: [{
      kind: 'variable-tracking', text: `Find all variables that are assigned the value ${number} in the text above.`,
      answer: names.join(' '), values: names,
    }],
  };
}

/** A single number, and a passage of the first half to be repeated. */
function passageIn(filler: string, random: Random): Hidden {
  const needle = { key: drawKeys(random)[0]!, value: drawNumber(random, 7) };
  return { introduction: INTRODUCTION, sentences: [sentenceOf(needle)], questions: [aboutOne('needle', needle), aboutPassage(filler.slice(0, filler.length / 2), random)] };
}

function sentenceOf({ key, value }: Needle): string {
  return ` One of the special magic numbers for ${key} is: ${value}.`;
}

function aboutOne(kind: Kind, { key, value }: Needle): Question {
  return {
    kind, text: `What is the special magic number for ${key} mentioned in the provided text?`,
    answer: `The special magic number for ${key} mentioned in the provided text is ${value}.`, values: [value],
  };
}

function aboutSeveral(kind: Kind, keys: string, needles: readonly Needle[]): Question {
  const values = needles.map(({ value }) => value);
  return {
    kind, text: `What are all the special magic numbers for ${keys} mentioned in the provided text?`,
    answer: `The special magic numbers for ${keys} mentioned in the provided text are ${listed(values)}.`, values,
  };
}

/** Where a paragraph begins, if one does. A sentence that is hidden may fall into it, which seldom happens. */
function aboutPassage(text: string, random: Random): Question {
  const words = [...text.slice(paragraphFrom(text, below(random, text.length))).matchAll(/\S+\s*/g)].map(([word]) => word);
  const firstWords = (count: number): string => words.slice(0, count).join('').trimEnd();
  const [given, passage] = [firstWords(GIVEN_WORDS), firstWords(QUOTED_WORDS)];
  return { kind: 'quote', text: `Repeat the passage that begins with "${given}".`, answer: passage, values: [passage.slice(given.length)] };
}

function paragraphFrom(text: string, from: number): number {
  const end = text.lastIndexOf('\n\n', from);
  return end < 0 ? 0 : end + 2;
}

/** 'a, b, c, and d' */
function listed(items: readonly string[]): string {
  return `${items.slice(0, -1).join(', ')}, and ${items.at(-1)!}`;
}

/** The book from `from` on, beginning again at its end. */
function cut(book: string, from: number, length: number): string {
  return book.repeat(1 + Math.ceil((from + length) / book.length)).slice(from, from + length);
}

/** The sentences in their order, each after the first line that ends behind its place. */
function hide(text: string, sentences: readonly string[], random: Random): string {
  const places = sentences.map(() => random()).sort((a, b) => a - b);
  const cuts = places.map((place) => lineEnd(text, Math.floor(place * text.length)));
  const pieces = sentences.map((sentence, i) => text.slice(cuts[i - 1] ?? 0, cuts[i]) + sentence);
  return pieces.join('') + text.slice(cuts.at(-1) ?? 0);
}

/** Behind the first line that ends at `from` or later, and behind the empty ones after it. */
function lineEnd(text: string, from: number): number {
  const end = text.slice(from).search(/\n(?!\n)/);
  return end < 0 ? text.length : from + end + 1;
}

/** Distinct, [KEYS] */
function drawKeys(random: Random): string[] {
  return shuffled(ADJECTIVES, random).slice(0, KEYS).map((adjective) => `${adjective}-${NOUNS[below(random, NOUNS.length)]!}`);
}

function drawNumber(random: Random, digits: number): string {
  const least = 10 ** (digits - 1);
  return String(least + below(random, 9 * least));
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  return items.map((item) => ({ item, rank: random() })).sort((a, b) => a.rank - b.rank).map(({ item }) => item);
}

function below(random: Random, bound: number): number {
  return Math.floor(random() * bound);
}

/** Numerical Recipes' linear congruential generator; its high bits, in [0, 1), are good enough to place needles. */
function randomFrom(seed: number): Random {
  let state = Math.imul(seed + 1, 2_654_435_761) >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
