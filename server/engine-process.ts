/**
 * The engine side as a child process: scheduler/process.ts behind an IPC channel, so that a crash in native code
 * leaves the HTTP process alive. Knows nothing of what the messages mean. Called through engine-client.ts.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { EngineProcessOptions, FromEngine } from '../scheduler/messages.ts';
import type { EngineListeners, EngineTransport, StartEngine } from './engine-transport.ts';

const ENTRY = fileURLToPath(new URL('../scheduler/process.ts', import.meta.url));

/** Gives a StartEngine whose every call forks a new process with these options. */
export function engineProcess(options: EngineProcessOptions): StartEngine {
  return (listeners) => {
    const child = fork(ENTRY, [JSON.stringify(options)], {
      serialization: 'advanced',
      execArgv: typescriptLoader(),
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    return transportOf(child, listeners);
  };
}

function transportOf(child: ChildProcess, listeners: EngineListeners): EngineTransport {
  let gone = false;
  const exited = (reason: string): void => {
    if (gone) return;
    gone = true;
    listeners.onExit(reason);
  };
  child.on('message', (message) => { if (!gone) listeners.onMessage(message as FromEngine); });
  child.on('error', (error) => { exited(`the engine process failed: ${error.message}`); });
  child.on('exit', (code, signal) => { exited(`the engine process ended with ${signal ?? `exit code ${String(code)}`}`); });
  return {
    // A send that fails means that the process is ending; 'exit' tells so.
    send: (message) => { if (child.connected) child.send(message, () => undefined); },
    kill: () => { child.kill('SIGKILL'); },
  };
}

/** Node strips types by itself since 22.18, but not below node_modules; there and on Node 20 tsx does. */
function typescriptLoader(): string[] {
  const strips = 'typescript' in process.features && process.features.typescript !== false;
  if (strips && !ENTRY.includes('node_modules')) return [];
  return ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href];
}
