/**
 * What is asked of drafters: one long document, and requests about it that share its prefill: quote a passage, go on with
 * the book, answer a question about needles. Talks to /tokenize and /detokenize only. Called by main.ts.
 */
import type { Client } from '../client.ts';
import { buildHidden, tokenize, type Source } from '../eval/build.ts';
import { needlesDocument } from '../eval/documents.ts';
import { seededRandom } from '../random.ts';

export const WORKLOADS = ['quote', 'continue', 'needles'] as const;
export type Workload = typeof WORKLOADS[number];

export interface Request {
  readonly ids: readonly number[];
  /** For rapid, which cannot read it out of token ids. */
  readonly question: string;
  /** Whether the answer must have all the tokens that it may have; otherwise it ends where the model ends it. */
  readonly toTheEnd: boolean;
}

export interface Workloads {
  /** Tokens that all requests begin with, but for those that go on with the book a little earlier. */
  readonly documentIds: readonly number[];
  readonly documentText: string;
  readonly requests: Readonly<Record<Workload, readonly Request[]>>;
}

/** Room for questions and answers behind the document. */
const QUESTION_ROOM = 256;
/** By which a passage is asked for, in the words that the bundled model was trained on. */
const QUOTE = 'Repeat the passage that begins with ';
const HEAD_TOKENS = 8;
/** Of a passage that is asked for: as the book has them, with no sentence hidden among them. */
const PASSAGE_TOKENS = 96;
/** So many tokens in a row that stand in the document too are quoted, and no chance. */
const QUOTED_RUN = 8;
/** Where the second, third, ... request goes on with the book: so many tokens earlier each. */
const EARLIER = 192;
/** The end of what is gone on with, as a question to retrieve for. */
const CONTINUED_TOKENS = 48;

/** `count` requests of each kind about one document of nearly `tokens` tokens. */
export async function buildWorkloads(source: Source, tokens: number, count: number, seed: number): Promise<Workloads> {
  const { client } = source;
  const document = await buildHidden(source, needlesDocument(seed), tokens - QUESTION_ROOM);
  const { textIds, bookFrom } = document;
  const each = <Value>(make: (i: number) => Promise<Value>): Promise<Value[]> => Promise.all(Array.from({ length: count }, (_, i) => make(i)));
  const places = passages(source, textIds.slice(bookFrom), count, seed).map((place) => bookFrom + place);
  return {
    documentIds: textIds,
    documentText: await detokenize(client, textIds.slice(bookFrom)),
    requests: {
      quote: await each(async (i) => {
        const head = textIds.slice(places[i], places[i]! + HEAD_TOKENS);
        const [before, after] = await Promise.all([tokenize(client, `\n\n${QUOTE}"`), tokenize(client, `".${source.frame.after}`)]);
        // The words as ids: a text that is cut elsewhere would ask for other tokens than those that stand there.
        return { ids: [...textIds, ...before, ...head, ...after], question: `${QUOTE}"${await detokenize(client, head)}".`, toTheEnd: true };
      }),
      continue: await each(async (i) => {
        const ids = textIds.slice(0, textIds.length - i * EARLIER);
        return { ids, question: await detokenize(client, ids.slice(-CONTINUED_TOKENS)), toTheEnd: true };
      }),
      needles: await each((i) => Promise.resolve(needleRequest(document.prompts, i))),
    },
  };
}

/** The questions whose answers are long: all numbers of one key, and those of several. */
function needleRequest(prompts: Awaited<ReturnType<typeof buildHidden>>['prompts'], i: number): Request {
  const long = prompts.filter(({ question }) => question.values.length > 1);
  const { ids, question } = long[i % long.length]!;
  return { ids, question: question.text, toTheEnd: false };
}

/** Places behind the ends of lines of the text, with a passage behind each. Pure but for the book it is given. [count] */
function passages({ book }: Source, ids: readonly number[], count: number, seed: number): number[] {
  const random = seededRandom(seed + 1);
  const lineEnds = new Set(book.ids.filter((_, i) => book.endsLine[i]));
  const starts = ids.flatMap((id, i) => (lineEnds.has(id) && i + 2 * QUESTION_ROOM < ids.length && !lineEnds.has(ids[i + 1]!) ? [i + 1] : []));
  const text = bytesOf(book.ids);
  const whole = starts.filter((start) => text.includes(bytesOf(ids.slice(start, start + PASSAGE_TOKENS))));
  if (whole.length === 0) throw new RangeError('the document is too short to quote from');
  return Array.from({ length: count }, () => whole[random.below(whole.length)]!);
}

function bytesOf(ids: readonly number[]): Buffer {
  return Buffer.from(Int32Array.from(ids).buffer);
}

/** Share of the answer's tokens that stand in runs of QUOTED_RUN or more tokens of the document. Pure. */
export function quotedShare(answer: readonly number[], document: readonly number[]): number {
  const runs = new Set<string>();
  for (let i = 0; i + QUOTED_RUN <= document.length; i++) runs.add(document.slice(i, i + QUOTED_RUN).join());
  let quoted = 0;
  let end = 0; // Of what is counted.
  for (let i = 0; i + QUOTED_RUN <= answer.length; i++) {
    if (!runs.has(answer.slice(i, i + QUOTED_RUN).join())) continue;
    quoted += i + QUOTED_RUN - Math.max(i, end);
    end = i + QUOTED_RUN;
  }
  return answer.length === 0 ? 0 : quoted / answer.length;
}

async function detokenize(client: Client, tokens: readonly number[]): Promise<string> {
  return ((await client.post('/detokenize', { tokens })) as { prompt: string }).prompt;
}
