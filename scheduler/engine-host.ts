/**
 * The engine side without a process: turns messages into steps for as long as there is work, and sleeps
 * otherwise. Called by process.ts, and by tests that run both sides in one process.
 */
import { setImmediate as afterMessages } from 'node:timers/promises';
import { PAGE_TOKENS } from '../kvcache/page-lists/page-list.ts';
import type { FromEngine, ToEngine } from './messages.ts';
import { Loop, type LoopParts } from './loop.ts';

export type EngineHostParts = Omit<LoopParts, 'now'> & { readonly now?: () => number };

export class EngineHost {
  /** Resolves after the last message, when the engine is closed. */
  readonly closed: Promise<void>;
  readonly #parts: EngineHostParts;
  readonly #loop: Loop;
  #isClosing = false;
  #wake: () => void = () => undefined;

  /** Says 'ready' at once. */
  constructor(parts: EngineHostParts) {
    this.#parts = parts;
    this.#loop = new Loop({ now: () => performance.now(), ...parts });
    const { engine, send } = parts;
    send({ type: 'ready', spec: engine.spec, kvTokens: engine.pages * PAGE_TOKENS, gauges: this.#loop.gauges });
    this.closed = this.#live();
  }

  receive(message: ToEngine): void {
    if (message.type === 'close') this.#isClosing = true;
    else this.#loop.receive(message);
    this.#wake();
  }

  async #live(): Promise<void> {
    try {
      while (!this.#isClosing) await (this.#loop.isIdle ? this.#sleep() : this.#turn());
      this.#loop.endAll('shutting_down', 'The server is shutting down.');
    } catch (error) {
      this.#die(error);
    }
    await this.#parts.engine.close();
    await this.#parts.draftEngine?.close();
  }

  /** Messages that have arrived are let in between two steps, unless they were while a device worked. */
  async #turn(): Promise<void> {
    if (!await this.#loop.step()) await afterMessages();
  }

  #sleep(): Promise<void> {
    return new Promise((resolve) => { this.#wake = resolve; });
  }

  #die(error: unknown): void {
    const message: FromEngine = { type: 'fatal', message: error instanceof Error ? error.message : String(error) };
    this.#isClosing = true;
    this.#parts.send(message);
  }
}
