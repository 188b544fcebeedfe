// Retrieval in its threads, with the bundled model's tokenizer and template, over a book with a needle in it.
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openRetrieval, type RetrievalService } from '../../retrieval/retrieval-service.ts';
import type { RetrievalReport, RetrievalRequest, Retrieved } from '../../retrieval/retrieve.ts';
import { loadTokenizer, type Tokenizer } from '../../tokenizer/tokenizer.ts';
import { embeddingFolder } from './embedding-model.ts';

const BUNDLED = fileURLToPath(new URL('../../models/longspan-16m', import.meta.url));
const document = readFileSync(fileURLToPath(new URL('../../docs/examples/the-time-machine.txt', import.meta.url)), 'utf8').trimEnd();
const question = 'What is the special magic number for silver-lantern mentioned in the provided text?';
const NEEDLE = /One of the special magic numbers for silver-lantern is: \d{7}\./;

let service: RetrievalService;
let tokenizer: Tokenizer;
beforeAll(async () => {
  service = await openRetrieval({ dir: BUNDLED, embeddingDir: '', threads: 1 });
  tokenizer = await loadTokenizer(BUNDLED);
});
afterAll(() => service.close());

const request: RetrievalRequest = {
  conversation: { messages: [{ role: 'user', content: `${document}\n\n${question}` }], options: { addGenerationPrompt: true } },
  question: null, documents: null, budgetTokens: 1024, chunkTokens: 128,
};

function textOf(retrieved: Retrieved): string {
  expect(retrieved.promptIds).not.toBeNull();
  return tokenizer.decode(retrieved.promptIds!, { skipSpecial: false });
}

function reportOf(retrieved: Retrieved): RetrievalReport {
  if (retrieved.promptIds === null) throw new Error(retrieved.reason);
  return retrieved.report;
}

describe('by BM25', () => {
  test('a chat becomes the chunks that matter and the question, in the model\'s format, within the budget', async () => {
    const retrieved = await service.retrieve(request);
    const text = textOf(retrieved);
    expect(text).toMatch(NEEDLE);
    expect(text).toMatch(/^<\|im_start\|>user\n/);
    expect(text.endsWith(`\n\n${question}<|im_end|>\n<|im_start|>assistant\n`)).toBe(true);
    expect(retrieved).toMatchObject({ report: { rankedBy: 'bm25', questionFrom: 'last paragraph', documentsFrom: 'conversation' } });
    const { tokens, chunks, chunksOf } = reportOf(retrieved);
    expect(tokens).toBeGreaterThan(1024 - 128);
    expect(tokens).toBeLessThanOrEqual(1024);
    expect(chunks).toBeGreaterThanOrEqual(8);
    expect(chunksOf).toBeGreaterThan(30_000 / 128);
    expect(retrieved.promptIds!.length).toBeLessThan(tokens + 100);
  });

  test('chunks stand in the order of the document', async () => {
    const parts = textOf(await service.retrieve(request)).replace('<|im_start|>user\n', '').split('\n\n').slice(0, -1).filter((part) => part.length > 40);
    const places = parts.map((part) => document.indexOf(part.trim()));
    expect(parts.length).toBeGreaterThan(5);
    expect(places).not.toContain(-1);
    expect(places).toEqual(places.toSorted((a, b) => a - b));
  });

  test('a raw prompt becomes chunks and question and nothing else', async () => {
    const text = textOf(await service.retrieve({ ...request, conversation: null, documents: ['no such thing', document], question }));
    expect(text).toMatch(NEEDLE);
    expect(text).not.toContain('<|im_start|>');
    expect(text.endsWith(`\n\n${question}`)).toBe(true);
  });

  test('where nothing is found the reason is said', async () => {
    const ask = (changes: Partial<RetrievalRequest>) => service.retrieve({ ...request, ...changes });
    expect(await ask({ question: 'qwertz' })).toEqual({ promptIds: null, reason: expect.stringContaining('no chunk') as string });
    expect(await ask({ conversation: { messages: [{ role: 'system', content: document }], options: {} } }))
      .toEqual({ promptIds: null, reason: expect.stringContaining('no question') as string });
  });

  test('leaves the event loop to others meanwhile', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await service.retrieve({ ...request, documents: Array.from({ length: 20 }, () => document) });
    clearInterval(timer);
    expect(turns).toBeGreaterThan(20);
  });
});

test('an embedding model ranks instead, if there is one', async () => {
  const folder = await embeddingFolder();
  const embedding = await openRetrieval({ dir: BUNDLED, embeddingDir: folder, threads: 1 });
  const documents = ['apple apple apple', 'the river', 'lantern lantern', 'of of of of'];
  const retrieved = await embedding.retrieve({ ...request, documents, question: 'lantern', chunkTokens: 16 });
  expect(textOf(retrieved)).toContain('lantern lantern');
  expect(retrieved).toMatchObject({ report: { rankedBy: 'embedding' } });
  await embedding.close();
  await rm(folder, { recursive: true });
});

test('an embedding model that is not there ends the start with a sentence', async () => {
  await expect(openRetrieval({ dir: BUNDLED, embeddingDir: '/nowhere', threads: 1 })).rejects.toThrow(/model\.onnx is missing/);
});
