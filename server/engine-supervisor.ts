/**
 * Keeps one engine side alive: starts it, sees it become ready or die, starts it again, later each time it dies soon,
 * and gives up when it never gets ready. Knows no requests (engine-client.ts does) and no processes
 * (engine-process.ts does).
 */
import type { FromEngine, ToEngine } from '../scheduler/messages.ts';
import type { EngineTransport, StartEngine } from './engine-transport.ts';
import type { EngineState } from './generation.ts';

export interface SupervisorOptions {
  readonly start: StartEngine;
  readonly onMessage: (message: FromEngine) => void;
  /** The engine side died or was closed; state says what comes next. `reason` is half a sentence. */
  readonly onDown: (reason: string, state: 'restarting' | 'closed') => void;
  /** Wait before the first restart; doubles with each life that was short. Default 100. */
  readonly restartDelayMs?: number;
}

/** A life that lasted this long says that the engine works: the next restart is quick again. */
const STABLE_MS = 30_000;
const MAX_RESTART_DELAY_MS = 10_000;
/** Starts in a row that never became ready, after which there is no further one. */
const MAX_FAILED_STARTS = 8;
/** How long close() waits for the engine side to end by itself. */
const CLOSE_MS = 5000;

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class EngineSupervisor {
  readonly #options: SupervisorOptions;
  #state: EngineState = 'starting';
  #transport: EngineTransport | null = null;
  #waiters: Waiter[] = [];
  #closeListeners: (() => void)[] = [];
  #restartTimer: NodeJS.Timeout | undefined;
  #fatalReason: string | null = null;
  #closedReason = '';
  #readyAtMs: number | null = null;
  #failedStarts = 0;
  #shortLives = 0;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  get state(): EngineState {
    return this.#state;
  }

  start(): void {
    this.#readyAtMs = this.#fatalReason = null;
    this.#transport = this.#options.start({
      onMessage: (message) => { this.#receive(message); },
      onExit: (reason) => { this.#exited(this.#fatalReason ?? reason); },
    });
  }

  send(message: ToEngine): void {
    this.#transport?.send(message);
  }

  /** Resolves when the state is 'ready', rejects with the reason when it becomes 'closed'. */
  whenReady(): Promise<void> {
    if (this.#state === 'ready') return Promise.resolve();
    if (this.#state === 'closed') return Promise.reject(new Error(this.#closedReason));
    return new Promise((resolve, reject) => { this.#waiters.push({ resolve, reject }); });
  }

  /** Asks the engine side to end, then makes it. Idempotent. */
  async close(): Promise<void> {
    clearTimeout(this.#restartTimer);
    this.#closed('the server is shutting down');
    const transport = this.#transport;
    if (transport === null) return;
    const timer = setTimeout(() => { transport.kill(); }, CLOSE_MS);
    const ended = new Promise<void>((resolve) => { this.#closeListeners.push(resolve); });
    transport.send({ type: 'close' });
    await ended;
    clearTimeout(timer);
  }

  #receive(message: FromEngine): void {
    if (message.type === 'fatal') {
      this.#fatalReason = message.message;
      this.#transport?.kill();
      return;
    }
    if (message.type === 'ready' && this.#state !== 'closed') this.#becameReady();
    this.#options.onMessage(message);
  }

  #becameReady(): void {
    this.#state = 'ready';
    this.#readyAtMs = performance.now();
    this.#failedStarts = 0;
    this.#waiters.splice(0).forEach(({ resolve }) => { resolve(); });
  }

  #exited(reason: string): void {
    this.#transport = null;
    this.#closeListeners.splice(0).forEach((listener) => { listener(); });
    if (this.#state === 'closed') return;
    if (this.#readyAtMs === null) this.#failedStarts++;
    const lastedMs = this.#readyAtMs === null ? 0 : performance.now() - this.#readyAtMs;
    this.#shortLives = lastedMs > STABLE_MS ? 0 : this.#shortLives + 1;
    if (this.#state === 'starting' || this.#failedStarts >= MAX_FAILED_STARTS) this.#closed(reason);
    else this.#restart(reason);
  }

  #restart(reason: string): void {
    this.#state = 'restarting';
    this.#options.onDown(reason, 'restarting');
    const delay = (this.#options.restartDelayMs ?? 100) * 2 ** Math.max(0, this.#shortLives - 1);
    this.#restartTimer = setTimeout(() => { this.start(); }, Math.min(delay, MAX_RESTART_DELAY_MS));
  }

  #closed(reason: string): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#closedReason = reason;
    this.#options.onDown(reason, 'closed');
    this.#waiters.splice(0).forEach(({ reject }) => { reject(new Error(reason)); });
  }
}
