/**
 * Documents of the RULER kinds (arXiv 2404.06654) and what is asked about them, from a seed; generator and wording are
 * our own. One document is asked several questions, so that its prefill is paid once. Pure: knows text, no tokens;
 * build.ts makes prompts of wanted lengths from it.
 */
import { seededRandom, type Random } from '../random.ts';
import { drawKeys, drawNumbers, drawVariables, shuffle } from './words.ts';

export const TASKS = ['needle', 'multi-key', 'multi-value', 'multi-query', 'variable-tracking', 'common-words'] as const;
export type Task = typeof TASKS[number];

export interface Question {
  readonly task: Task;
  readonly text: string;
  /** What a right answer holds. */
  readonly values: readonly string[];
  /** A right answer in full, for the test inside the prompt. */
  readonly answer: string;
}

/** Sentences hidden in a book. */
export interface HiddenDocument {
  readonly kind: 'hidden';
  readonly introduction: string;
  /** In the order in which they stand in the text. [sentences] */
  readonly sentences: readonly string[];
  /** Where in the text each stands, 0..1, ascending. [sentences] */
  readonly places: readonly number[];
  /** Where in the book the text begins, 0..1. */
  readonly from: number;
  readonly questions: readonly Question[];
}

/** A list of words, some of which come often. */
export interface ListDocument {
  readonly kind: 'list';
  readonly introduction: string;
  readonly body: string;
  readonly questions: readonly Question[];
}

export type EvalDocument = HiddenDocument | ListDocument;

/** Which tasks share a document. */
export const FAMILIES: readonly (readonly Task[])[] = [['needle'], ['multi-key', 'multi-value', 'multi-query'], ['variable-tracking'], ['common-words']];

const KEYS = 16;
const MULTI_KEY_QUESTIONS = 4;
const VALUES_OF_ONE_KEY = 4;
const KEYS_OF_ONE_QUERY = 4;
const HOPS = 4;
const DIGITS = 7;

const INTRODUCTION = 'A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.';

interface Needle {
  readonly key: string;
  readonly value: string;
}

export function needleDocument(seed: number): HiddenDocument {
  const random = seededRandom(seed);
  const needle = { key: drawKeys(random, 1)[0]!, value: drawNumbers(random, 1, DIGITS)[0]! };
  return hidden(random, INTRODUCTION, [sentenceOf(needle)], [aboutOne('needle', needle)]);
}

/** 16 keys, one of them with four numbers; four of the others are asked for one by one, and four together. */
export function needlesDocument(seed: number): HiddenDocument {
  const random = seededRandom(seed);
  const keys = drawKeys(random, KEYS);
  const numbers = drawNumbers(random, KEYS - 1 + VALUES_OF_ONE_KEY, DIGITS);
  const [many, ...others] = keys;
  const singles = others.map((key, i): Needle => ({ key, value: numbers[i]! }));
  const multiple = numbers.slice(KEYS - 1).map((value): Needle => ({ key: many!, value }));
  const needles = shuffle(random, [...singles, ...multiple]);
  const asked = shuffle(random, [...singles]);
  const values = needles.filter(({ key }) => key === many).map(({ value }) => value);
  return hidden(random, INTRODUCTION, needles.map(sentenceOf), [
    ...asked.slice(0, MULTI_KEY_QUESTIONS).map((needle) => aboutOne('multi-key', needle)),
    aboutMany('multi-value', many!, values),
    aboutSeveral(asked.slice(-KEYS_OF_ONE_QUERY)),
  ]);
}

function sentenceOf({ key, value }: Needle): string {
  return ` One of the special magic numbers for ${key} is: ${value}.`;
}

function aboutOne(task: Task, { key, value }: Needle): Question {
  return {
    task, values: [value],
    text: `What is the special magic number for ${key} mentioned in the provided text?`,
    answer: `The special magic number for ${key} mentioned in the provided text is ${value}.`,
  };
}

function aboutMany(task: Task, keys: string, values: readonly string[]): Question {
  return {
    task, values,
    text: `What are all the special magic numbers for ${keys} mentioned in the provided text?`,
    answer: `The special magic numbers for ${keys} mentioned in the provided text are ${listed(values)}.`,
  };
}

function aboutSeveral(needles: readonly Needle[]): Question {
  return aboutMany('multi-query', listed(needles.map(({ key }) => key)), needles.map(({ value }) => value));
}

/** 'a, b, c, and d' */
function listed(items: readonly string[]): string {
  return `${items.slice(0, -1).join(', ')}, and ${items.at(-1)!}`;
}

/** One chain: a variable is given a number, and four others one after the other the variable before. */
export function variablesDocument(seed: number): HiddenDocument {
  const random = seededRandom(seed);
  const names = drawVariables(random, HOPS + 1);
  const number = drawNumbers(random, 1, 5)[0]!;
  const sentences = names.map((name, i) => (i === 0 ? ` VAR ${name} = ${number}.` : ` VAR ${name} = VAR ${names[i - 1]!}.`));
  const introduction = 'Memorize and track the chain(s) of variable assignment hidden in the following text.';
  return hidden(random, introduction, sentences, [{
    task: 'variable-tracking', values: names, answer: names.join(' '),
    text: `Find all variables that are assigned the value ${number} in the text above.`,
  }]);
}

function hidden(random: Random, introduction: string, sentences: readonly string[], questions: readonly Question[]): HiddenDocument {
  const places = sentences.map(() => random.next()).sort((a, b) => a - b);
  return { kind: 'hidden', introduction, sentences, places, from: random.next(), questions };
}

const COMMON_WORDS = 10;
/** How often a common word stands for each time that another does. */
const COMMON_TO_OTHER = 10;
/** Of a word that is not common, in a short list; more where a longer one would need more different words than this. */
const OTHER_TIMES = 3;
const MOST_DIFFERENT = 2000;

/** A list of about `entries` words, at least 300, drawn from `vocabulary`. */
export function wordsDocument(seed: number, entries: number, vocabulary: readonly string[]): ListDocument {
  const random = seededRandom(seed);
  const distinctAt = (times: number): number => Math.max(COMMON_WORDS, Math.round((entries - COMMON_WORDS * COMMON_TO_OTHER * times) / times));
  let times = Math.min(OTHER_TIMES, Math.max(1, Math.floor(entries / (2 * COMMON_WORDS * COMMON_TO_OTHER))));
  while (distinctAt(times) > Math.min(MOST_DIFFERENT, vocabulary.length - COMMON_WORDS)) times++;
  const words = shuffle(random, [...vocabulary]).slice(0, COMMON_WORDS + distinctAt(times));
  const common = words.slice(0, COMMON_WORDS);
  const list = words.flatMap((word, i) => Array<string>(i < COMMON_WORDS ? COMMON_TO_OTHER * times : times).fill(word));
  return {
    kind: 'list',
    introduction: 'Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.',
    body: shuffle(random, list).map((word, i) => `${i + 1}. ${word}`).join(' '),
    questions: [{
      task: 'common-words', values: common,
      text: 'What are the 10 most common words in the above list?',
      answer: `The 10 most common words in the above list are: ${common.join(', ')}.`,
    }],
  };
}
