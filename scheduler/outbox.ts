/**
 * What happens between two reports: events in order, and counters to add up. Knows nothing of who reads
 * them. Filled by live-sequences.ts, scheduler.ts and commit.ts; emptied by loop.ts once a step.
 */
import type { SequenceEvent, StepCounters } from './messages.ts';

type Counts = { -readonly [Name in keyof StepCounters]: number };

export class Outbox {
  #events: SequenceEvent[] = [];
  #counts = noCounts();

  push(event: SequenceEvent): void {
    this.#events.push(event);
  }

  count(name: keyof StepCounters, amount: number): void {
    this.#counts[name] += amount;
  }

  /** Hands over what has gathered and starts anew. */
  take(): { events: SequenceEvent[]; counters: StepCounters } {
    const taken = { events: this.#events, counters: this.#counts };
    this.#events = [];
    this.#counts = noCounts();
    return taken;
  }
}

function noCounts(): Counts {
  return {
    stepMs: 0, deviceMs: 0, prefillTokens: 0, decodeTokens: 0, recomputedTokens: 0, prefixQueryTokens: 0, prefixHitTokens: 0,
    preemptions: 0, pagesRead: 0, pagesScored: 0, attendedTokens: 0, draftPasses: 0, draftedTokens: 0, acceptedTokens: 0,
  };
}
