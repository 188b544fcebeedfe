/**
 * Retrieval in worker threads, so that long documents never hold up the event loop. Threads are started by the first
 * request that needs one, or at once where there is an embedding model to load. Knows no HTTP and no engine.
 * Opened by server/create-services.ts, called by server/generate/draft-prompt.ts.
 */
import { WorkerPool } from '../tokenizer/worker-pool.ts';
import type { RetrievalRequest, Retrieved } from './retrieve.ts';
import type { RetrievalTask, RetrievalWorkerData } from './retrieval-worker.ts';

export interface RetrievalService {
  retrieve(request: RetrievalRequest): Promise<Retrieved>;
  /** Ends the threads; what they work at is rejected. */
  close(): Promise<void>;
}

export interface RetrievalOptions {
  /** Folder of the served model. */
  readonly dir: string;
  /** Folder of the embedding model; '' ranks by BM25. */
  readonly embeddingDir: string;
  /** Worker threads at most; with an embedding model one, which uses this many itself. */
  readonly threads: number;
}

/** Rejects with the sentence of a ModelFileError when the embedding model cannot be loaded. */
export async function openRetrieval(options: RetrievalOptions): Promise<RetrievalService> {
  const service = new PooledRetrieval(options);
  if (options.embeddingDir === '') return service;
  try {
    await service.load();
    return service;
  } catch (error) {
    await service.close();
    throw error;
  }
}

class PooledRetrieval implements RetrievalService {
  readonly #options: RetrievalOptions;
  #pool: WorkerPool<RetrievalTask, Retrieved | null> | null = null;

  constructor(options: RetrievalOptions) {
    this.#options = options;
  }

  async load(): Promise<void> {
    await this.#running().run(null);
  }

  async retrieve(request: RetrievalRequest): Promise<Retrieved> {
    return (await this.#running().run(request))!;
  }

  async close(): Promise<void> {
    await this.#pool?.close();
  }

  #running(): WorkerPool<RetrievalTask, Retrieved | null> {
    return this.#pool ??= this.#start();
  }

  #start(): WorkerPool<RetrievalTask, Retrieved | null> {
    const { dir, embeddingDir, threads } = this.#options;
    const data: RetrievalWorkerData = { dir, embeddingDir, threads };
    const file = new URL('./retrieval-worker.ts', import.meta.url);
    return new WorkerPool({ file, name: 'run', maxThreads: embeddingDir === '' ? threads : 1, data });
  }
}
