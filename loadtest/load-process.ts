/**
 * Client work in a process of its own, so that the work and the measuring do not wait for each other.
 * Starts load-worker.ts and gives its result. Called by front-end.ts.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** Times are epoch milliseconds: processes share no other clock. */
export interface TaskTypes {
  /** Opens `count` streams of `maxTokens` tokens at once and reads them to the end. */
  streams: { task: { count: number; maxTokens: number }; result: { tokens: number; startMs: number; endMs: number; errors: string[] } };
  /** Opens `count` endless streams and leaves all of them as soon as each has shown text. */
  leave: { task: { count: number }; result: { leftMs: number; errors: string[] } };
  /** GETs /health every `everyMs` until stopped. */
  health: { task: { everyMs: number }; result: { latenciesMs: number[]; failures: number } };
}

export type TaskType = keyof TaskTypes;
export type Task<T extends TaskType> = TaskTypes[T]['task'];
export type TaskResult<T extends TaskType> = TaskTypes[T]['result'];

/** What the worker is sent: first one of these, then perhaps 'stop'. */
export interface TaskMessage {
  readonly type: TaskType;
  readonly baseUrl: string;
  readonly task: object;
}

export interface RunningTask<T extends TaskType> {
  readonly result: Promise<TaskResult<T>>;
  /** For tasks without an end of their own. */
  stop(): void;
}

/** Where the child finds tsx, wherever this process was started. */
const PACKAGE_ROOT = fileURLToPath(new URL('..', import.meta.url));

export function startTask<T extends TaskType>(type: T, baseUrl: string, task: Task<T>): RunningTask<T> {
  const worker = fork(fileURLToPath(new URL('load-worker.ts', import.meta.url)), { execArgv: ['--import', 'tsx'], cwd: PACKAGE_ROOT });
  const answered = once(worker, 'message') as Promise<[TaskResult<T>]>;
  const ended = once(worker, 'exit').then(() => { throw new Error(`the client process of task '${type}' ended without a result`); });
  worker.send({ type, baseUrl, task } satisfies TaskMessage);
  return { result: Promise.race([answered.then(([result]) => result), ended]), stop: () => worker.send('stop') };
}
