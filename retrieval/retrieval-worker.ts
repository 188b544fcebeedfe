/**
 * Runs in a worker thread: a TextCodec and a ranker of its own, loaded with the thread. Knows no pool.
 * retrieval-service.ts names this file to piscina, which calls `run`.
 */
import { isMainThread } from 'node:worker_threads';
import { workerData } from 'piscina';
import { loadTextCodec } from '../tokenizer/text-codec.ts';
import { Bm25Ranker } from './bm25.ts';
import { EmbeddingRanker } from './embedding.ts';
import { retrieve, type RetrievalParts, type RetrievalRequest, type Retrieved } from './retrieve.ts';

export interface RetrievalWorkerData {
  /** Folder of the served model. */
  readonly dir: string;
  /** Folder of the embedding model; '' ranks by BM25. */
  readonly embeddingDir: string;
  /** Threads of the embedding model. */
  readonly threads: number;
}

/** null only loads: it rejects when a file is missing or broken. */
export type RetrievalTask = RetrievalRequest | null;

const parts: Promise<RetrievalParts> | null = isMainThread ? null : load(workerData as RetrievalWorkerData);
// A failure belongs to the task that meets it.
parts?.catch(() => undefined);

export async function run(task: RetrievalTask): Promise<Retrieved | null> {
  if (parts === null) throw new Error('retrieval-worker runs in worker threads only');
  const loaded = await parts;
  return task === null ? null : retrieve(task, loaded);
}

async function load({ dir, embeddingDir, threads }: RetrievalWorkerData): Promise<RetrievalParts> {
  const codec = await loadTextCodec(dir);
  return { codec, ranker: embeddingDir === '' ? new Bm25Ranker() : await EmbeddingRanker.open(embeddingDir, { threads }) };
}
