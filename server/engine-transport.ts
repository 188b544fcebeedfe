/**
 * How messages reach one life of the engine side and come back. engine-process.ts implements it over a child
 * process, tests in process; engine-client.ts is its only caller.
 */
import type { FromEngine, ToEngine } from '../scheduler/messages.ts';

export interface EngineListeners {
  readonly onMessage: (message: FromEngine) => void;
  /** The engine side is gone, for the reason given as half a sentence. Once; no message follows. */
  readonly onExit: (reason: string) => void;
}

export interface EngineTransport {
  send(message: ToEngine): void;
  /** Ends the engine side now, whatever it does; onExit follows. Idempotent. */
  kill(): void;
}

/** Starts a new engine side. Listeners are called later, never before this returns. */
export type StartEngine = (listeners: EngineListeners) => EngineTransport;
