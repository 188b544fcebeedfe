/**
 * Worker threads that run a TypeScript file of ours: piscina, started so that the threads can load TypeScript.
 * One thread is started with the pool. A thread that dies takes only its own task with it. Used by text-service.ts.
 */
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Piscina } from 'piscina';

export interface WorkerPoolOptions {
  /** The file that the threads load, and the exported function that they run. */
  readonly file: URL;
  readonly name: string;
  readonly maxThreads: number;
  /** What piscina's `workerData` is in the threads. */
  readonly data: unknown;
}

/** Loading a large vocabulary again takes half a second, so idle threads stay for a while. */
const IDLE_MS = 60_000;

export class WorkerPool<Task, Answer> {
  readonly #pool: Piscina<Task, Answer>;

  constructor({ file, name, maxThreads, data }: WorkerPoolOptions) {
    this.#pool = new Piscina<Task, Answer>({
      filename: fileURLToPath(file), name, workerData: data,
      minThreads: 1, maxThreads: Math.max(1, maxThreads), idleTimeout: IDLE_MS, execArgv: typescriptArgv(),
    });
  }

  /** Rejects with what the task threw, or with the reason why its thread died. */
  run(task: Task): Promise<Answer> {
    return this.#pool.run(task);
  }

  /** Ends the threads; tasks that are running or waiting are rejected. */
  close(): Promise<void> {
    return this.#pool.destroy();
  }
}

/** Node below 22.18 loads TypeScript through tsx only; found from here, since the working directory may be anywhere. */
function typescriptArgv(): string[] {
  if ('typescript' in process.features && Boolean(process.features.typescript)) return [];
  return ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href];
}
