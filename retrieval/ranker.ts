/** How chunks are judged: a score for each, for one question. Implemented by bm25.ts and embedding.ts; called by retrieve.ts. */
export interface Ranker {
  /** As the answer names it. */
  readonly name: 'bm25' | 'embedding';
  /** Higher is nearer to the question; a chunk of 0 or less has nothing to do with it. [chunks] */
  rank(question: string, chunks: readonly string[]): Promise<Float64Array>;
}
