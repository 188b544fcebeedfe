/**
 * What heads are measured on: a stretch of a book with numbers hidden in it, the question for one of them and
 * the right answer (the multi-key needle task of RULER, arXiv 2404.06654), so that heads that look things up
 * have something to look up. Text only; measure.ts makes tokens of it. A seed gives the same text always.
 */

/** Texts as a person would send them, and what the model should say. */
export interface NeedlePrompt {
  readonly question: string;
  readonly answer: string;
}

const NEEDLES = 16;
const ADJECTIVES = ['amber', 'brave', 'calm', 'distant', 'early', 'fierce', 'gentle', 'hollow', 'keen', 'lucky', 'misty', 'noble', 'plain', 'quiet', 'rusty', 'silver'];
const NOUNS = ['anchor', 'basket', 'candle', 'dragon', 'eagle', 'fountain', 'garden', 'hammer', 'island', 'kettle', 'lantern', 'meadow', 'otter', 'pebble', 'river', 'window'];
const INTRODUCTION = 'A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.';

/** `fillerChars` of the book, from a place that the seed decides, with the needles spread over them. */
export function writeNeedlePrompt(book: string, seed: number, fillerChars: number): NeedlePrompt {
  const random = randomFrom(seed);
  const needles = shuffled(ADJECTIVES, random).slice(0, NEEDLES)
    .map((adjective) => ({ key: `${adjective}-${NOUNS[below(random, NOUNS.length)]!}`, value: String(1_000_000 + below(random, 9_000_000)) }));
  const asked = needles[below(random, NEEDLES)]!;
  const places = needles.map(() => random()).sort((a, b) => a - b);
  const text = cut(book, below(random, book.length), fillerChars);
  const sentences = needles.map(({ key, value }) => ` One of the special magic numbers for ${key} is: ${value}.`);
  const question = `What is the special magic number for ${asked.key} mentioned in the provided text?`;
  return {
    question: `${INTRODUCTION}\n\n${insert(text, places, sentences)}\n\n${question}`,
    answer: `The special magic number for ${asked.key} mentioned in the provided text is ${asked.value}.`,
  };
}

/** The book from `from` on, beginning again at its end. */
function cut(book: string, from: number, length: number): string {
  return book.repeat(1 + Math.ceil((from + length) / book.length)).slice(from, from + length);
}

/** Each sentence after the first line that ends behind its place. places: shares of the text, ascending. */
function insert(text: string, places: readonly number[], sentences: readonly string[]): string {
  const cuts = places.map((place) => {
    const end = text.indexOf('\n', Math.floor(place * text.length));
    return end < 0 ? text.length : end + 1;
  });
  const pieces = sentences.map((sentence, i) => text.slice(cuts[i - 1] ?? 0, cuts[i]) + sentence);
  return pieces.join('') + text.slice(cuts.at(-1));
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items.map((item) => ({ item, rank: random() })).sort((a, b) => a.rank - b.rank).map(({ item }) => item);
}

function below(random: () => number, bound: number): number {
  return Math.floor(random() * bound);
}

/** Numerical Recipes' linear congruential generator; its high bits, in [0, 1), are good enough to place needles. */
function randomFrom(seed: number): () => number {
  let state = Math.imul(seed + 1, 2_654_435_761) >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
