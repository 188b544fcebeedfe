import { expect, test } from 'vitest';
import { findQuestion, type Given } from '../../retrieval/question.ts';
import type { ChatMessage } from '../../tokenizer/chat-template.ts';

const LONG = 100;
const book = 'Chapter one.\n\n'.repeat(20).trim();
const find = (messages: readonly ChatMessage[], given: Partial<Given> = {}) =>
  findQuestion(messages, { question: null, documents: null, isLong: (text) => text.length > LONG, ...given });
const user = (content: ChatMessage['content']): ChatMessage => ({ role: 'user', content: content ?? null });
const system = { role: 'system', content: 'Be brief.' };

test('a short last user message is the question, and all else but instructions the document', () => {
  const answer = { role: 'assistant', content: 'A fine book.' };
  const found = find([system, user(book), answer, user('Who did it?')])!;
  expect(found).toMatchObject({ question: 'Who did it?', questionFrom: 'last user message', documents: [book, 'A fine book.'], documentsFrom: 'conversation' });
  expect(found.rebuild('Some text.')).toEqual([system, user('Some text.\n\nWho did it?')]);
});

test('the last paragraph of a long user message is the question, and the rest the document', () => {
  const found = find([user(`${book}\n\nWho did it?\n`)])!;
  expect(found).toMatchObject({ question: 'Who did it?', questionFrom: 'last paragraph', documents: [book] });
  expect(found.rebuild('Some text.')).toEqual([user('Some text.\n\nWho did it?')]);
});

test('where the last paragraph is long, its last line is the question', () => {
  const lines = book.replaceAll('\n\n', '\n');
  expect(find([user(`${lines}\nWho?`)])).toMatchObject({ question: 'Who?', documents: [lines] });
  expect(find([user('x'.repeat(200))])).toBeNull();
});

test('what the request gives goes before what is found', () => {
  const given = find([system, user(`${book}\n\nAnswer in one word.`)], { question: 'Who did it?', documents: ['a', 'b'] })!;
  expect(given).toMatchObject({ question: 'Who did it?', questionFrom: 'request', documents: ['a', 'b'], documentsFrom: 'request' });
  expect(given.rebuild('c')).toEqual([system, user('c\n\nWho did it?')]);
});

test('a short last message stays as it is, though the request gives the question to retrieve for', () => {
  const found = find([user(book), user('Answer in one word: who did it?')], { question: 'murderer' })!;
  expect(found).toMatchObject({ question: 'murderer', documents: [book] });
  expect(found.rebuild('c')).toEqual([user('c\n\nAnswer in one word: who did it?')]);
});

test('a long instruction is document too, and what follows the question is kept', () => {
  const opening = { role: 'assistant', content: 'It was' };
  const found = find([{ role: 'system', content: book }, user('Who did it?'), opening])!;
  expect(found.documents).toEqual([book]);
  expect(found.rebuild('c')).toEqual([user('c\n\nWho did it?'), opening]);
});

test('parts of a message are one text', () => {
  expect(find([user([{ type: 'text', text: book }, { type: 'text', text: '\nWho did it?' }])])).toMatchObject({ question: 'Who did it?', documents: [book] });
});

test('a conversation without a user has no question', () => {
  expect(find([system])).toBeNull();
});
