/**
 * The heart: step() takes messages, plans, runs, commits and reports. One message goes out per step, with
 * all sequences in it. Knows no process and no timers: engine-host.ts calls step() for as long as there is
 * something to do.
 */
import type { Engine, StepResult } from '../engine/engine.ts';
import { KvCache } from '../kvcache/kv-cache.ts';
import { Commit } from './commit.ts';
import { CostModel } from './cost-model.ts';
import { gaugesOf } from './gauges.ts';
import { LiveSequences } from './live-sequences.ts';
import type { EngineGauges, EngineProcessOptions, FailureCode, FromEngine, ToEngine } from './messages.ts';
import { Outbox } from './outbox.ts';
import { Scheduler } from './scheduler.ts';
import type { PlannedChunk } from './step-plan.ts';
import { Tenants } from './tenants.ts';

export type LoopOptions = Pick<EngineProcessOptions, 'maxModelLen' | 'maxSequences' | 'stepTokens' | 'targetGapMs' | 'prefixCache'>;

export interface LoopParts {
  readonly engine: Engine;
  readonly options: LoopOptions;
  readonly send: (message: FromEngine) => void;
  /** Milliseconds that only grow. */
  readonly now: () => number;
}

type Command = Exclude<ToEngine, { type: 'close' }>;

/** After so many failed steps in a row the engine is beyond help. */
const MAX_FAILED_STEPS = 2;

export class Loop {
  readonly #parts: LoopParts;
  readonly #kv: KvCache;
  readonly #tenants = new Tenants();
  readonly #cost = new CostModel();
  readonly #outbox = new Outbox();
  readonly #live: LiveSequences;
  readonly #scheduler: Scheduler;
  readonly #commit: Commit;
  #inbox: Command[] = [];
  #failedSteps = 0;
  #lastFailure = '';

  constructor(parts: LoopParts) {
    const { engine, options } = parts;
    this.#parts = parts;
    this.#kv = new KvCache(engine.pages);
    const shared = { engine, kv: this.#kv, tenants: this.#tenants, outbox: this.#outbox, cost: this.#cost };
    this.#live = new LiveSequences({ ...shared, prefixCache: options.prefixCache });
    this.#scheduler = new Scheduler(options, { ...shared, live: this.#live });
    this.#commit = new Commit({ ...shared, live: this.#live, maxModelLen: options.maxModelLen || engine.spec.contextLength });
  }

  get isIdle(): boolean {
    return this.#inbox.length === 0 && this.#live.isEmpty;
  }

  get gauges(): EngineGauges {
    return gaugesOf(this.#live, this.#kv, this.#cost);
  }

  /** Taken up at the beginning of the next step. */
  receive(command: Command): void {
    this.#inbox.push(command);
  }

  /** One turn. Rejects when the engine has failed for good; the sequences of a failed step have ended by then. */
  async step(): Promise<void> {
    this.#takeMessages();
    this.#endLate();
    const plan = this.#scheduler.plan(this.#parts.now());
    if (plan.length > 0) await this.#run(plan);
    this.#report();
    if (this.#failedSteps >= MAX_FAILED_STEPS) throw new Error(`${this.#failedSteps} steps failed in a row: ${this.#lastFailure}`);
  }

  /** Ends everything that is left, for a reason that is not its own. */
  endAll(code: FailureCode, message: string): void {
    this.#takeMessages();
    for (const sequence of this.#live.all()) this.#live.fail(sequence, code, message);
    this.#report();
  }

  /** Throws unless every page is where it should be. Slow: for tests. */
  checkIntegrity(): void {
    this.#kv.checkIntegrity();
    if (this.#live.isEmpty && this.#kv.numHeld > 0) throw new Error(`${this.#kv.numHeld} pages are held by no sequence`);
  }

  async #run(plan: readonly PlannedChunk[]): Promise<void> {
    const startMs = this.#parts.now();
    let result: StepResult;
    try {
      result = await this.#parts.engine.run(plan);
      this.#failedSteps = 0;
    } catch (error) {
      this.#failStep(plan, error);
      return;
    }
    const nowMs = this.#parts.now();
    this.#commit.step(plan, result, nowMs);
    this.#count(plan, result, nowMs - startMs);
  }

  #failStep(plan: readonly PlannedChunk[], error: unknown): void {
    this.#failedSteps++;
    this.#lastFailure = error instanceof Error ? error.message : String(error);
    for (const sequence of new Set(plan.map((chunk) => chunk.sequence))) this.#live.fail(sequence, 'engine_failed', this.#lastFailure);
  }

  #count(plan: readonly PlannedChunk[], { pagesRead, pagesScored }: StepResult, ms: number): void {
    this.#outbox.count('stepMs', ms);
    this.#outbox.count('pagesRead', pagesRead);
    this.#outbox.count('pagesScored', pagesScored);
    let decodes = 0;
    let prefillTokens = 0;
    let prefillReads = 0;
    for (const { phase, tokens, reads } of plan) {
      if (phase === 'decode') decodes++;
      else prefillTokens += tokens.length;
      if (phase === 'prefill') prefillReads += tokens.length * reads.tokens;
    }
    this.#cost.observe({ ms, decodes, prefillTokens, prefillReads });
  }

  #report(): void {
    this.#parts.send({ type: 'step', ...this.#outbox.take(), gauges: this.gauges });
  }

  #takeMessages(): void {
    const commands = this.#inbox;
    this.#inbox = [];
    for (const command of commands) {
      if (command.type === 'abort') this.#abort(command);
      else for (const sequence of this.#live.submit(command.request, this.#parts.now())) this.#scheduler.checkFits(sequence);
    }
  }

  /** A sequence that has ended meanwhile is not found: a late abort changes nothing. */
  #abort({ id, choice, reason }: Command & { type: 'abort' }): void {
    for (const sequence of this.#live.find(id, choice)) {
      if (reason === 'client') this.#live.drop(sequence);
      else this.#live.finish(sequence, { reason: 'stop', stopToken: null }, this.#parts.now());
    }
  }

  #endLate(): void {
    const nowMs = this.#parts.now();
    for (const sequence of this.#live.all()) {
      const { deadlineMs } = sequence.request;
      if (deadlineMs === null || nowMs - sequence.submission.submittedMs <= deadlineMs) continue;
      this.#live.fail(sequence, 'deadline_exceeded', `Not finished within the ${deadlineMs} ms of its deadline.`);
    }
  }
}
