/**
 * Chunks by the words that they share with the question: BM25+, as minisearch computes it. Knows words, no tokens and
 * no language. Made by retrieval-worker.ts where no embedding model is given.
 */
import MiniSearch from 'minisearch';
import type { Ranker } from './ranker.ts';

/** Scripts that put no space between words: each character is a term. */
const UNSPACED = '\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}\\p{Script=Lao}\\p{Script=Khmer}\\p{Script=Myanmar}';
const TERM = new RegExp(`[${UNSPACED}]|(?:(?![${UNSPACED}])[\\p{L}\\p{M}\\p{N}])+`, 'gu');

export class Bm25Ranker implements Ranker {
  readonly name = 'bm25';

  rank(question: string, chunks: readonly string[]): Promise<Float64Array> {
    const index = new MiniSearch<{ id: number; text: string }>({ fields: ['text'], tokenize: terms, processTerm: (term) => term });
    index.addAll(chunks.map((text, id) => ({ id, text })));
    const scores = new Float64Array(chunks.length);
    // The library multiplies by how many words matched, so that a chunk full of common words would win.
    for (const { id, score, queryTerms } of index.search(question)) scores[id as number] = score / Math.max(1, queryTerms.length);
    return Promise.resolve(scores);
  }
}

/** Letters and digits in lower case; every other character parts two terms. */
export function terms(text: string): string[] {
  return text.toLowerCase().match(TERM) ?? [];
}
