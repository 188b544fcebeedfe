/**
 * From documents to token ids of wanted lengths, as a chat where the model has a template for it. What the prompts of a
 * document have in common is kept apart, so that it is read once for all of its questions. Knows no engine. Called by
 * measure.ts and choose.ts.
 */
import { ChatTemplateError } from '../tokenizer/chat-template.ts';
import type { TextCodec } from '../tokenizer/text-codec.ts';
import { writeDocument, type Kind, type Question } from './documents.ts';

/** A question and its right answer, in the tokens that follow the document's. */
export interface AskedTokens {
  readonly kind: Kind;
  readonly tokens: Int32Array;
  /** Index in `tokens` of the answer's first. */
  readonly answerFrom: number;
  /** Of the first that has to be looked up. All from there on count: words between values say that there is another one. */
  readonly countedFrom: number;
}

export interface TokenizedDocument {
  /** What all its prompts begin with: the document. */
  readonly shared: Int32Array;
  readonly asked: readonly AskedTokens[];
}

/** Of about `length` tokens before the question: characters per token are those of a first try. */
export function tokenizeDocument(codec: TextCodec, { book, seed, length }: { book: string; seed: number; length: number }): TokenizedDocument {
  const charsFor = (chars: number): number => chars * length / encode(codec, writeDocument(book, seed, Math.floor(chars)).text).length;
  const { text, questions } = writeDocument(book, seed, Math.floor(charsFor(charsFor(3 * length))));
  const alone = encode(codec, text);
  const prompts = questions.map((question) => encode(codec, `${text}\n\n${question.text}`));
  const shared = Math.min(...prompts.map((prompt) => agreeing(alone, prompt)));
  return {
    shared: alone.slice(0, shared),
    asked: questions.map((question, i) => askedTokens(codec, question, prompts[i]!.subarray(shared))),
  };
}

/** `rest`: what the prompt has after the document. */
function askedTokens(codec: TextCodec, { kind, answer, values }: Question, rest: Int32Array): AskedTokens {
  const spoken = codec.tokenizer.encode(answer, { special: 'plain' });
  // Up to the first value the encodings of all and of what stands before it are one.
  const before = codec.tokenizer.encode(answer.slice(0, answer.indexOf(values[0]!)), { special: 'plain' });
  return { kind, tokens: joined(rest, spoken), answerFrom: rest.length, countedFrom: rest.length + agreeing(before, spoken) };
}

/** As a chat where the model has a template for it. */
function encode(codec: TextCodec, message: string): Int32Array {
  try {
    return codec.encodeChat([{ role: 'user', content: message }], {});
  } catch (error) {
    if (!(error instanceof ChatTemplateError)) throw error;
    return codec.encodePrompt(`${message}\n`, { addSpecial: true });
  }
}

/** Tokens at the start that both have. */
function agreeing(a: Int32Array, b: Int32Array): number {
  const differs = a.findIndex((token, i) => token !== b[i]);
  return differs < 0 ? a.length : differs;
}

/** One after the other. */
export function joined(a: Int32Array, b: Int32Array): Int32Array {
  const all = new Int32Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
