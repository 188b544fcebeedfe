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
  /** Indices in `tokens` of what had to be looked up. */
  readonly counted: readonly number[];
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
  const counted = countedTokens(codec, { answer, values }, spoken).map((at) => rest.length + at);
  return { kind, tokens: joined(rest, spoken), answerFrom: rest.length, counted };
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

/** Tokens of the values: those at which the encoding of the answer up to a value, and to its end, parts from that of all. */
function countedTokens({ tokenizer }: TextCodec, { answer, values }: { answer: string; values: readonly string[] }, spoken: Int32Array): number[] {
  const tokensOf = (chars: number): number => agreeing(tokenizer.encode(answer.slice(0, chars), { special: 'plain' }), spoken);
  let at = 0;
  return values.flatMap((value) => {
    const start = answer.indexOf(value, at);
    at = start + value.length;
    const [from, to] = [tokensOf(start), tokensOf(at)];
    return Array.from({ length: to - from }, (_, i) => from + i);
  });
}

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
