/**
 * One running request on the HTTP side: a queue of its events between the engine client, which pushes, and one
 * reader, which iterates. Sees to it that each choice ends exactly once. Knows no transport and no text.
 */
import type { FailureCode, GenerationRequest, SequenceEvent } from '../scheduler/messages.ts';
import type { Generation } from './generation.ts';

type Result = IteratorResult<SequenceEvent, undefined>;

export interface StreamOwner {
  readonly stopChoice: (choice: number) => void;
  /** The reader has cancelled; called at most once, and never after the last choice has ended. */
  readonly cancelled: () => void;
}

const DONE: Result = { done: true, value: undefined };

export class GenerationStream implements Generation, AsyncIterator<SequenceEvent, undefined> {
  readonly id: number;
  readonly promptTokens: number;
  readonly #owner: StreamOwner;
  /** Events not yet read: #events[#next..]. */
  readonly #events: SequenceEvent[] = [];
  #next = 0;
  #reader: ((result: Result) => void) | null = null;
  /** [choices] */
  readonly #ended: boolean[];
  #running: number;
  #cancelled = false;
  #started = false;

  constructor(request: GenerationRequest, owner: StreamOwner) {
    this.id = request.id;
    this.promptTokens = request.promptIds.length;
    this.#owner = owner;
    this.#running = request.choices;
    this.#ended = Array.from({ length: request.choices }, () => false);
  }

  /** False while the request waits for its first step. */
  get started(): boolean {
    return this.#started;
  }

  /** No event will be pushed any more. */
  get over(): boolean {
    return this.#cancelled || this.#running === 0;
  }

  /** Events of a choice that has ended are dropped: an abort and the engine's own end may cross. */
  push(event: SequenceEvent): void {
    if (this.over || ('choice' in event && this.#ended[event.choice] === true)) return;
    this.#started = true;
    if (event.type === 'finished' || event.type === 'failed') this.#end(event.choice);
    if (this.#reader === null) this.#events.push(event);
    else this.#hand({ done: false, value: event });
  }

  /** Fails every choice that has not ended. */
  fail(code: FailureCode, message: string): void {
    this.#ended.forEach((ended, choice) => {
      if (!ended) this.push({ type: 'failed', id: this.id, choice, code, message });
    });
  }

  stopChoice(choice: number): void {
    if (!this.over && this.#ended[choice] === false) this.#owner.stopChoice(choice);
  }

  cancel(): void {
    const wasOver = this.over;
    this.#cancelled = true;
    this.#events.length = this.#next = 0;
    if (this.#reader !== null) this.#hand(DONE);
    if (!wasOver) this.#owner.cancelled();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result> {
    const event = this.#take();
    if (event !== null) return Promise.resolve({ done: false, value: event });
    if (this.over) return Promise.resolve(DONE);
    return new Promise((resolve) => { this.#reader = resolve; });
  }

  /** The reader left its loop early. */
  return(): Promise<Result> {
    this.cancel();
    return Promise.resolve(DONE);
  }

  #take(): SequenceEvent | null {
    const event = this.#events[this.#next];
    if (event === undefined) return null;
    this.#next++;
    if (this.#next === this.#events.length) this.#events.length = this.#next = 0;
    return event;
  }

  #hand(result: Result): void {
    const reader = this.#reader;
    this.#reader = null;
    reader?.(result);
  }

  #end(choice: number): void {
    this.#ended[choice] = true;
    this.#running--;
  }
}
