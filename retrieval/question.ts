/**
 * Finds in a conversation what is asked and what it is asked about, and builds the same conversation around a short
 * context instead. Pure; knows messages, no tokens: the caller says which texts are long. Called by retrieve.ts.
 */
import { contentText, type ChatMessage } from '../tokenizer/chat-template.ts';

export interface Sources {
  /** What chunks are ranked by. */
  readonly question: string;
  readonly questionFrom: 'request' | 'last user message' | 'last paragraph';
  readonly documents: readonly string[];
  readonly documentsFrom: 'request' | 'conversation';
}

export interface Found extends Sources {
  /** The conversation for a drafter that reads `context` instead of the documents. */
  rebuild(context: string): ChatMessage[];
}

export interface Given {
  readonly question: string | null;
  readonly documents: readonly string[] | null;
  /** Too long to be read besides what is retrieved. */
  readonly isLong: (text: string) => boolean;
}

/**
 * The question is the last user message, or the last paragraph of a long one; the document is everything else but short
 * instructions. What the request gives goes before. null when no question is found.
 */
export function findQuestion(messages: readonly ChatMessage[], given: Given): Found | null {
  const last = messages.findLastIndex(({ role }) => role === 'user');
  if (last < 0) return null;
  const text = contentText(messages[last]!.content) ?? '';
  const asked = askedIn(text, given);
  if (asked === null) return null;
  const kept = messages.slice(0, last).filter((message) => isInstruction(message) && !given.isLong(textOf(message)));
  const earlier = messages.slice(0, last).filter((message) => !kept.includes(message));
  return {
    question: given.question ?? asked,
    questionFrom: given.question !== null ? 'request' : asked === text ? 'last user message' : 'last paragraph',
    documents: given.documents ?? [...earlier.map(textOf), without(text, asked)].filter((document) => document !== ''),
    documentsFrom: given.documents === null ? 'conversation' : 'request',
    rebuild: (context) => [...kept, { ...messages[last]!, content: `${context}\n\n${asked}` }, ...messages.slice(last + 1)],
  };
}

function askedIn(text: string, { question, isLong }: Given): string | null {
  if (!isLong(text)) return text === '' ? question : text;
  return question ?? [/\n\s*\n/, /\n/].map((border) => lastPart(text, border)).find((part) => !isLong(part)) ?? null;
}

function lastPart(text: string, border: RegExp): string {
  return text.trim().split(border).at(-1)!.trim();
}

function without(text: string, part: string): string {
  const at = text.lastIndexOf(part);
  return at < 0 ? text : (text.slice(0, at) + text.slice(at + part.length)).trim();
}

function isInstruction({ role }: ChatMessage): boolean {
  return role === 'system' || role === 'developer';
}

function textOf({ content }: ChatMessage): string {
  return contentText(content) ?? '';
}
