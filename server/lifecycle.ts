/**
 * Whether the server takes new work, and how many requests are under way. Knows no HTTP: app.ts counts requests
 * into it and asks it, main.ts starts the drain and waits for its end.
 */
export class Lifecycle {
  #draining = false;
  #active = 0;
  #idleListeners: (() => void)[] = [];

  get draining(): boolean {
    return this.#draining;
  }

  /** Requests that have begun and whose answer is not finished. */
  get active(): number {
    return this.#active;
  }

  begin(): void {
    this.#active++;
  }

  end(): void {
    this.#active--;
    if (this.#active === 0) this.#idleListeners.splice(0).forEach((listener) => { listener(); });
  }

  startDrain(): void {
    this.#draining = true;
  }

  /** True as soon as no request is under way; false if that takes longer than `limitMs`. */
  async idleWithin(limitMs: number): Promise<boolean> {
    if (this.#active === 0) return true;
    return new Promise((resolve) => {
      const timer = setTimeout(() => { resolve(false); }, limitMs);
      this.#idleListeners.push(() => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }
}
