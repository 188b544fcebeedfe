/**
 * Documents cut into chunks of about equally many tokens, and chosen chunks put together again. Knows tokens, no question.
 * Called by retrieve.ts.
 */
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export interface Chunk {
  readonly text: string;
  readonly tokens: number;
  /** Which document, and the how-manieth chunk of it. */
  readonly document: number;
  readonly index: number;
}

export interface Cutting {
  readonly tokenizer: Tokenizer;
  /** Tokens of a chunk at most. */
  readonly chunkTokens: number;
}

/**
 * In order. Together the chunks are the document as the model reads it. A chunk ends with a line or a sentence where
 * one ends in its second half, and never within a character.
 */
export function cutIntoChunks(text: string, document: number, { tokenizer, chunkTokens }: Cutting): Chunk[] {
  const pieces = Array.from(tokenizer.encode(text, { special: 'plain' }), (id) => tokenizer.tokenBytes(id));
  const bytes = Buffer.concat(pieces);
  const chunks: Chunk[] = [];
  let start = 0;
  let end = 0;
  for (let from = 0; from < pieces.length;) {
    const to = endOfChunk(pieces, from, chunkTokens);
    for (let i = from; i < to; i++) end += pieces[i]!.length;
    const cut = nextCharacter(bytes, end);
    chunks.push({ text: bytes.toString('utf8', start, cut), tokens: to - from, document, index: chunks.length });
    start = cut;
    from = to;
  }
  return chunks;
}

const LINE_END = /\n$/;
const SENTENCE_END = /[.!?\u2026]["'\u2019\u201d)]*\s*$|[\u3002\uff01\uff1f]$/;

/** Index of the first token that no longer belongs to the chunk. */
function endOfChunk(pieces: readonly Uint8Array[], from: number, chunkTokens: number): number {
  const full = from + chunkTokens;
  if (full >= pieces.length) return pieces.length;
  for (const mark of [LINE_END, SENTENCE_END]) {
    for (let to = full; to > from + chunkTokens / 2; to--) {
      if (mark.test(Buffer.from(pieces[to - 1]!).toString())) return to;
    }
  }
  return full;
}

/** The best chunks that fit the budget together, in the order of the text. */
export function chooseChunks(chunks: readonly Chunk[], scores: Float64Array, budgetTokens: number): Chunk[] {
  const best = [...chunks.keys()].filter((i) => scores[i]! > 0).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const chosen: number[] = [];
  let left = budgetTokens;
  for (const i of best) {
    if (chunks[i]!.tokens > left) continue;
    chosen.push(i);
    left -= chunks[i]!.tokens;
  }
  return chosen.sort((a, b) => a - b).map((i) => chunks[i]!);
}

/** Neighbours run on, others are parted by an empty line. */
export function joinChunks(chunks: readonly Chunk[]): string {
  const runs: string[] = [];
  chunks.forEach((chunk, i) => {
    const before = chunks[i - 1];
    const runsOn = before !== undefined && before.document === chunk.document && before.index + 1 === chunk.index;
    runs.push(runsOn ? runs.pop()! + chunk.text : chunk.text);
  });
  return runs.map((run) => run.trim()).join('\n\n');
}

/** Where the character that `at` may stand in has ended. */
function nextCharacter(bytes: Buffer, at: number): number {
  let end = at;
  while (end < bytes.length && (bytes[end]! & 0xc0) === 0x80) end++;
  return end;
}
