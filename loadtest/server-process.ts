/**
 * A server of this repository as a child process, for benchmarks that bring their own: on a free port,
 * ready when start() resolves, gone when this process is. Talks to it by HTTP only.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { request } from 'undici';

export interface ServerProcess {
  readonly baseUrl: string;
  /** Of the HTTP process; the engine is its child. */
  readonly pid: number;
  /** Asks it to end, and ends it after STOP_MS at the latest. */
  stop(): Promise<void>;
}

const READY_POLL_MS = 100;
const STOP_MS = 5_000;
const KEPT_LOG_CHARACTERS = 4_000;

/** Rejects with the server's own last words when it exits or is not ready within `readyMs`. */
export async function startServer(flags: readonly string[], readyMs = 120_000): Promise<ServerProcess> {
  const port = await freePort();
  const entry = fileURLToPath(new URL('../bin/longspan.mjs', import.meta.url));
  const child = spawn(process.execPath, [entry, ...flags, '--host', '127.0.0.1', '--port', String(port)], { stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = (): void => { child.kill('SIGKILL'); };
  process.once('exit', kill);
  child.once('exit', () => process.off('exit', kill));
  const lastWords = keepLastWords(child);
  const baseUrl = `http://127.0.0.1:${port}`;
  try {
    await untilReady(child, baseUrl, Date.now() + readyMs);
  } catch (error) {
    await stop(child);
    throw new Error(`${(error as Error).message}\n${lastWords()}`, { cause: error });
  }
  return { baseUrl, pid: child.pid!, stop: () => stop(child) };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

/** Reads the child's output, so that its pipes never fill, and keeps the end of it. */
function keepLastWords(child: ChildProcess): () => string {
  let words = '';
  const add = (bytes: Buffer): void => { words = (words + bytes.toString()).slice(-KEPT_LOG_CHARACTERS); };
  child.stdout?.on('data', add);
  child.stderr?.on('data', add);
  return () => words;
}

async function untilReady(child: ChildProcess, baseUrl: string, deadline: number): Promise<void> {
  while (child.exitCode === null && child.signalCode === null) {
    if (await isReady(baseUrl)) return;
    if (Date.now() > deadline) throw new Error('the server was not ready in time; it said:');
    await sleep(READY_POLL_MS);
  }
  throw new Error(`the server ended with ${child.exitCode ?? child.signalCode} before it was ready; it said:`);
}

async function isReady(baseUrl: string): Promise<boolean> {
  try {
    const response = await request(`${baseUrl}/ready`);
    await response.body.dump();
    return response.statusCode === 200;
  } catch (error) {
    // Nobody listens yet.
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return false;
    throw error;
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await gone;
  clearTimeout(timer);
}
