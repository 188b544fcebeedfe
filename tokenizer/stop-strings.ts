/**
 * Ends a text at the first stop string and holds back what may be the start of one. Pure, knows text only; what it
 * gives out does not depend on how the text was cut into pieces. One per stream, used by the routes.
 */
export interface StopStep {
  /** Text that is safe to give out now. */
  readonly text: string;
  /** The stop string that ended the text, or null while it goes on. */
  readonly stopped: string | null;
}

interface Match { readonly stop: string; readonly start: number; readonly end: number }

export class StopStrings {
  readonly #stops: readonly string[];
  readonly #includeStop: boolean;
  #held = '';
  #stopped: string | null = null;

  constructor(stops: readonly string[], { includeStop }: { readonly includeStop: boolean }) {
    this.#stops = stops.filter((stop) => stop !== '');
    this.#includeStop = includeStop;
  }

  /** After a stop nothing more is given out. */
  push(piece: string): StopStep {
    if (this.#stopped !== null) return { text: '', stopped: this.#stopped };
    const text = this.#held + piece;
    const match = this.#firstMatch(text);
    if (match !== null) {
      this.#stopped = match.stop;
      return { text: text.slice(0, this.#includeStop ? match.end : match.start), stopped: match.stop };
    }
    const safe = text.length - this.#heldLength(text);
    this.#held = text.slice(safe);
    return { text: text.slice(0, safe), stopped: null };
  }

  /** The text ends without a stop string: gives out what was held back. */
  flush(): string {
    const text = this.#stopped === null ? this.#held : '';
    this.#held = '';
    return text;
  }

  /** The match that is complete first as the characters come; of two that end together, the longer. */
  #firstMatch(text: string): Match | null {
    let first: Match | null = null;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      const end = start + stop.length;
      if (start < 0 || (first !== null && (end > first.end || (end === first.end && start > first.start)))) continue;
      first = { stop, start, end };
    }
    return first;
  }

  /** The length of the longest end of `text` that a stop string begins with. */
  #heldLength(text: string): number {
    const maxHeld = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(maxHeld, text.length); length > 0; length--) {
      const end = text.slice(-length);
      if (this.#stops.some((stop) => stop.length > length && stop.startsWith(end))) return length;
    }
    return 0;
  }
}
