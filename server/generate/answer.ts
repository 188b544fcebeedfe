/**
 * One answer under way: the generations of its prompts, and all their choices in one index space (prompt * n +
 * choice). Turns engine events into what choices hold and tells a listener; ends when every choice has ended, or with
 * the error of the first that failed. Knows no HTTP. Made by submit.ts; read once, by generate.ts or stream.ts.
 */
import type { SequenceEvent, SequenceMetrics, TokenLogprob } from '../../scheduler/messages.ts';
import { failureError } from '../errors.ts';
import type { Generation } from '../generation.ts';
import type { RequestRecord } from '../request-record.ts';
import type { Choice } from './choice.ts';
import type { EncodedPrompt } from './prompts.ts';
import type { TokenCounts } from './usage.ts';

/** One prompt and the generation that answers it. */
export interface PromptRun {
  readonly prompt: EncodedPrompt;
  readonly generation: Generation;
  /** Its own choices: [n], a part of the answer's. */
  readonly choices: readonly Choice[];
  readonly record: RequestRecord;
  /** Prompt tokens that were in the prefix cache; 0 until it has started. */
  cachedTokens: number;
  /** Of the prompt tokens that were asked for, as far as computed. They come before any token. */
  readonly promptLogprobs: TokenLogprob[];
}

export type Progress = Extract<SequenceEvent, { type: 'progress' }>;

export interface AnswerListener {
  /** A choice has something to take, or has ended. */
  changed(choice: Choice, run: PromptRun): void;
  progress(event: Progress, run: PromptRun): void;
  /** The choice waits; its tokens will be computed again before it goes on. */
  preempted(choice: Choice): void;
}

export class Answer {
  readonly runs: readonly PromptRun[];
  /** [prompts * n] */
  readonly choices: readonly Choice[];

  constructor(runs: readonly PromptRun[]) {
    this.runs = runs;
    this.choices = runs.flatMap((run) => run.choices);
  }

  /** Resolves when all choices have ended, or early after cancel(). Rejects with an ApiError when one failed. */
  async read(listener: AnswerListener): Promise<void> {
    try {
      await Promise.all(this.runs.map((run) => this.#readRun(run, listener)));
    } finally {
      this.cancel();
    }
  }

  /** The reader has gone, or has all it needs. Idempotent. */
  cancel(): void {
    for (const { generation, record } of this.runs) {
      generation.cancel();
      record.end();
    }
  }

  /** So far; final once read() has resolved. */
  counts(): TokenCounts {
    const sum = (read: (metrics: SequenceMetrics) => number): number => this.endings().reduce((total, metrics) => total + read(metrics), 0);
    return {
      promptTokens: this.runs.reduce((total, { prompt }) => total + prompt.ids.length, 0),
      cachedTokens: this.runs.reduce((total, run) => total + run.cachedTokens, 0),
      completionTokens: this.choices.reduce((total, choice) => total + choice.completionTokens, 0),
      draftedTokens: sum((metrics) => metrics.draftedTokens),
      acceptedTokens: sum((metrics) => metrics.acceptedTokens),
    };
  }

  /** What was done for each choice that has ended, in index order. */
  endings(): SequenceMetrics[] {
    return this.choices.flatMap(({ ending }) => ending === null ? [] : [ending.metrics]);
  }

  async #readRun(run: PromptRun, listener: AnswerListener): Promise<void> {
    for await (const event of run.generation) {
      run.record.see(event);
      this.#apply(event, run, listener);
    }
  }

  #apply(event: SequenceEvent, run: PromptRun, listener: AnswerListener): void {
    switch (event.type) {
      case 'started': run.cachedTokens = event.cachedTokens; break;
      case 'prompt':
        for (const scored of event.logprobs) run.promptLogprobs.push(scored);
        break;
      case 'progress': listener.progress(event, run); break;
      case 'tokens':
        acceptTokens(run, event);
        listener.changed(run.choices[event.choice]!, run);
        break;
      case 'finished':
        run.choices[event.choice]!.finish(event);
        listener.changed(run.choices[event.choice]!, run);
        break;
      case 'failed': throw failureError(event.code, event.message);
      case 'preempted': listener.preempted(run.choices[event.choice]!); break;
    }
  }
}

/** A stop string found in the text ends the choice in the engine too. */
function acceptTokens({ choices, generation }: PromptRun, event: Extract<SequenceEvent, { type: 'tokens' }>): void {
  if (choices[event.choice]!.accept(event) === 'stopped') generation.stopChoice(event.choice);
}
