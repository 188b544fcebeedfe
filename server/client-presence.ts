/**
 * Whether the client of one response is still there. One listener per response, from before the prompt is tokenised
 * until the last byte. Knows the socket only. Made by server/generate/generate.ts.
 */
import type { ServerResponse } from 'node:http';

export class ClientPresence {
  #gone = false;
  #onGone: (() => void) | null = null;

  constructor(response: ServerResponse) {
    response.on('close', () => {
      if (!response.writableFinished) this.#leave();
    });
    if (response.destroyed) this.#leave();
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Called once, at once if the client has gone already. Replaces what was set before. */
  onGone(listener: () => void): void {
    this.#onGone = listener;
    if (this.#gone) listener();
  }

  #leave(): void {
    this.#gone = true;
    this.#onGone?.();
  }
}
