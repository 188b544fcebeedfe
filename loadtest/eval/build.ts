/**
 * From documents to prompts of wanted lengths, in the chat format of the served model. Each part is tokenised by
 * itself and the ids are put together, so that lengths are exact and a document's text has the same tokens before
 * every question. Talks to /tokenize only. Called by run.ts.
 */
import type { Client } from '../client.ts';
import { insertAll, snapToLines, type TokenizedBook } from '../needle-documents.ts';
import { needleDocument, needlesDocument, variablesDocument, wordsDocument, type EvalDocument, type HiddenDocument, type ListDocument, type Question, type Task } from './documents.ts';

/** The texts that the model's chat template puts around a user message whose answer begins. */
export interface ChatFrame {
  readonly before: string;
  readonly after: string;
}

export interface Source {
  readonly client: Client;
  readonly frame: ChatFrame;
  readonly book: TokenizedBook;
  /** For lists of words. */
  readonly vocabulary: readonly string[];
}

export interface Prompt {
  readonly question: Question;
  /** Ready for the answer. The longest of a document's has the wanted length, and the others end earlier. */
  readonly ids: readonly number[];
  /** A right answer. */
  readonly answerIds: readonly number[];
}

/** Stands for the message; no template and no tokenizer changes it. */
const MARK = 'QXZQ';

export async function readChatFrame(client: Client): Promise<ChatFrame> {
  const answer = await client.post('/tokenize', { messages: [{ role: 'user', content: MARK }], add_generation_prompt: true, return_token_strs: true });
  const [before, after, ...more] = (answer as { token_strs: string[] }).token_strs.join('').split(MARK);
  if (before === undefined || after === undefined || more.length > 0) throw new Error('the chat template does not hold the message once');
  return { before, after };
}

export async function tokenize(client: Client, prompt: string): Promise<number[]> {
  return ((await client.post('/tokenize', { prompt, add_special_tokens: false })) as { tokens: number[] }).tokens;
}

/** The prompts of the document that `family` shares, the longest of exactly (a list of words: at most) `tokens` tokens. */
export async function buildPrompts(source: Source, family: readonly Task[], seed: number, tokens: number): Promise<readonly Prompt[]> {
  switch (family[0]!) {
    case 'needle': return (await buildHidden(source, needleDocument(seed), tokens)).prompts;
    case 'multi-key':
    case 'multi-value':
    case 'multi-query': return (await buildHidden(source, needlesDocument(seed), tokens)).prompts;
    case 'variable-tracking': return (await buildHidden(source, variablesDocument(seed), tokens)).prompts;
    case 'common-words': return listPrompts(source, seed, tokens);
  }
}

/** The prompts, and the book in the document. */
export interface BuiltDocument {
  readonly prompts: readonly Prompt[];
  /** Tokens before every question: the chat's beginning, the introduction, the book with its sentences. */
  readonly textIds: readonly number[];
  /** Where in these the book begins. */
  readonly bookFrom: number;
}

export async function buildHidden(source: Source, document: HiddenDocument, tokens: number): Promise<BuiltDocument> {
  const { book } = source;
  const [opening, endings, sentences] = await Promise.all([
    tokenize(source.client, openingOf(source, document)), endingsOf(source, document),
    Promise.all(document.sentences.map((sentence) => tokenize(source.client, sentence))),
  ]);
  const fixed = opening.length + longest(endings) + sentences.reduce((sum, sentence) => sum + sentence.length, 0);
  const room = tokens - fixed;
  if (room < 0) throw new RangeError(`${tokens} tokens are too short for a document: its sentences and question take ${fixed}`);
  const start = Math.floor(document.from * book.ids.length);
  const at = (i: number): number => (start + i) % book.ids.length;
  const text = Array.from({ length: room }, (_, i) => book.ids[at(i)]!);
  const places = snapToLines(document.places.map((share) => Math.floor(share * room)), room, (i) => book.endsLine[at(i)]!);
  const textIds = [...opening, ...insertAll(text, places, sentences)];
  return { prompts: withEndings(textIds, document, endings), textIds, bookFrom: opening.length };
}

/** Tokens of an entry of a list: its number, its point, its word. Corrected by what the list turns out to have. */
const TOKENS_OF_ENTRY = 6;
const ATTEMPTS = 5;

/** Shortens the list until it fits: a list has to be whole words. */
async function listPrompts(source: Source, seed: number, tokens: number): Promise<Prompt[]> {
  let entries = Math.floor(tokens / TOKENS_OF_ENTRY);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const document = wordsDocument(seed, entries, source.vocabulary);
    const [opening, endings] = await Promise.all([tokenize(source.client, openingOf(source, document) + document.body), endingsOf(source, document)]);
    const length = opening.length + longest(endings);
    if (length <= tokens && length > 0.97 * tokens) return withEndings(opening, document, endings);
    entries = Math.floor((entries * 0.99 * tokens) / length);
  }
  throw new Error(`no list of words came close to ${tokens} tokens in ${ATTEMPTS} attempts`);
}

function openingOf({ frame }: Source, { introduction }: EvalDocument): string {
  return `${frame.before}${introduction}\n\n`;
}

interface Ending {
  readonly closing: readonly number[];
  readonly answer: readonly number[];
}

/** [questions] */
function endingsOf({ client, frame }: Source, { questions }: HiddenDocument | ListDocument): Promise<Ending[]> {
  return Promise.all(questions.map(async ({ text, answer }) => ({
    closing: await tokenize(client, `\n\n${text}${frame.after}`), answer: await tokenize(client, answer),
  })));
}

function longest(endings: readonly Ending[]): number {
  return Math.max(...endings.map(({ closing }) => closing.length));
}

function withEndings(text: readonly number[], { questions }: EvalDocument, endings: readonly Ending[]): Prompt[] {
  return questions.map((question, i) => ({ question, ids: [...text, ...endings[i]!.closing], answerIds: endings[i]!.answer }));
}
