/**
 * The heart: step() takes messages, plans, drafts, runs, commits and reports. One message goes out per step, with
 * all sequences in it. Knows no process and no timers: engine-host.ts calls step() for as long as there is
 * something to do.
 */
import type { Draft } from '../engine/drafters/drafter.ts';
import type { Engine, StepResult } from '../engine/engine.ts';
import { KvCache } from '../kvcache/kv-cache.ts';
import { wholePages } from '../kvcache/page-owner.ts';
import { Commit } from './commit.ts';
import { CostModel } from './cost-model.ts';
import { Drafting } from './drafting.ts';
import { Foresight } from './foresight.ts';
import { gaugesOf } from './gauges.ts';
import { LiveSequences } from './live-sequences.ts';
import type { EngineGauges, EngineProcessOptions, FailureCode, FromEngine, ToEngine } from './messages.ts';
import { Outbox } from './outbox.ts';
import { Scheduler } from './scheduler.ts';
import type { Sequence } from './sequence.ts';
import { chunksOf, type PlannedChunk, type Scheduled } from './step-plan.ts';
import { Tenants } from './tenants.ts';

export type LoopOptions = Pick<EngineProcessOptions, 'maxModelLen' | 'maxSequences' | 'stepTokens' | 'targetGapMs' | 'prefixCache'>;

export interface LoopParts {
  readonly engine: Engine;
  /** null when there is no draft model. */
  readonly draftEngine?: Engine | null;
  readonly options: LoopOptions;
  readonly send: (message: FromEngine) => void;
  /** Milliseconds that only grow. */
  readonly now: () => number;
}

type Command = Exclude<ToEngine, { type: 'close' }>;

/** What was run, before anything follows from it. */
interface RunStep {
  readonly plan: readonly PlannedChunk[];
  readonly drafts: ReadonlyMap<Sequence, Draft>;
  readonly result: StepResult;
  /** Of the target alone. */
  readonly runMs: number;
}

/** After so many failed steps in a row the engine is beyond help. */
const MAX_FAILED_STEPS = 2;

export class Loop {
  readonly #parts: LoopParts;
  readonly #kv: KvCache;
  /** Of the draft model. */
  readonly #draftKv: KvCache | null;
  readonly #tenants = new Tenants();
  readonly #cost: CostModel;
  readonly #outbox = new Outbox();
  readonly #live: LiveSequences;
  readonly #drafting: Drafting;
  readonly #scheduler: Scheduler;
  readonly #commit: Commit;
  readonly #foresight: Foresight;
  #inbox: Command[] = [];
  #failedSteps = 0;
  #lastFailure = '';
  /** What the last step did is told while the next one runs. */
  #isReportHeld = false;

  constructor(parts: LoopParts) {
    const { engine, options, draftEngine = null, now } = parts;
    this.#parts = parts;
    this.#cost = new CostModel(engine.spec.vocab);
    this.#kv = kvCacheOf(engine);
    this.#foresight = new Foresight(engine, this.#kv);
    const maxModelLen = options.maxModelLen || engine.spec.contextLength;
    this.#draftKv = draftEngine === null ? null : kvCacheOf(draftEngine);
    this.#drafting = new Drafting({
      target: { engine, kv: this.#kv }, draftModel: draftEngine === null ? null : { engine: draftEngine, kv: this.#draftKv! },
      mayBegin: () => this.#live.waiting.size === 0, targetReadMs: (tokens) => this.#cost.prefillMsPerToken(tokens), maxModelLen, now,
    });
    const shared = { engine, kv: this.#kv, tenants: this.#tenants, outbox: this.#outbox, cost: this.#cost, drafting: this.#drafting };
    this.#live = new LiveSequences({ ...shared, prefixCache: options.prefixCache });
    this.#scheduler = new Scheduler(options, { ...shared, live: this.#live });
    this.#commit = new Commit({ ...shared, live: this.#live, maxModelLen });
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

  /**
   * One turn. -> whether messages were let in during it, as an engine that works apart does. Rejects when the engine has
   * failed for good; the sequences of a failed step have ended by then.
   */
  async step(): Promise<boolean> {
    this.#takeMessages();
    this.#endLate();
    const scheduled = this.#scheduler.plan(this.#parts.now());
    if (scheduled.length > 0) await this.#run(scheduled);
    this.#isReportHeld = this.#mayHoldReport(scheduled.length > 0);
    if (!this.#isReportHeld) this.#report();
    if (this.#failedSteps >= MAX_FAILED_STEPS) throw new Error(`${this.#failedSteps} steps failed in a row: ${this.#lastFailure}`);
    return scheduled.length > 0 && this.#failedSteps === 0 && this.#parts.engine.worksApart === true;
  }

  /** Ends everything that is left, for a reason that is not its own. */
  endAll(code: FailureCode, message: string): void {
    this.#takeMessages();
    for (const sequence of this.#live.all()) this.#live.fail(sequence, code, message);
    this.#report();
  }

  /** Throws unless every page is where it should be. Slow: for tests. */
  checkIntegrity(): void {
    for (const kv of [this.#kv, this.#draftKv]) {
      kv?.checkIntegrity();
      if (this.#live.isEmpty && kv !== null && kv.numHeld > 0) throw new Error(`${kv.numHeld} pages are held by no sequence`);
    }
  }

  async #run(scheduled: readonly Scheduled[]): Promise<void> {
    const startMs = this.#parts.now();
    let step: RunStep;
    try {
      step = await this.#runStep(scheduled);
      this.#failedSteps = 0;
    } catch (error) {
      this.#failStep(scheduled, error);
      return;
    }
    const { plan, drafts, result, runMs } = step;
    const nowMs = this.#parts.now();
    this.#commit.step(plan, result, nowMs);
    this.#cost.observeScoring(scoredRows(plan), this.#parts.now() - nowMs);
    this.#count(step, nowMs - startMs);
    if (plan.every(({ phase }) => phase === 'decode')) this.#drafting.observe(scheduled.map(({ sequence }) => sequence), drafts, runMs);
  }

  /** Only beside a device that works apart, and where another step is sure to follow. */
  #mayHoldReport(hasRun: boolean): boolean {
    return this.#parts.engine.worksApart === true && hasRun && this.#failedSteps === 0 && !this.isIdle;
  }

  async #runStep(scheduled: readonly Scheduled[]): Promise<RunStep> {
    // Drafting takes passes of its own: nobody waits for these to hear of the step before.
    if (scheduled.some(({ draftTokens }) => draftTokens > 0)) this.#reportHeld();
    const drafts = await this.#drafting.draft(scheduled);
    const plan = this.#foresight.take(scheduled) ?? scheduled.flatMap((each) => chunksOf(each, drafts.get(each.sequence) ?? null));
    const startMs = this.#parts.now();
    const running = this.#parts.engine.run(plan);
    let result: StepResult;
    try {
      this.#reportHeld();
      this.#foresight.look(plan);
    } finally {
      result = await running; // Whatever fails beside it: an engine runs one step at a time.
    }
    return { plan, drafts, result, runMs: this.#parts.now() - startMs };
  }

  #failStep(scheduled: readonly Scheduled[], error: unknown): void {
    this.#failedSteps++;
    this.#lastFailure = error instanceof Error ? error.message : String(error);
    for (const { sequence } of scheduled) this.#live.fail(sequence, 'engine_failed', this.#lastFailure);
  }

  /** `ms`: with the time that drafting took. */
  #count({ plan, drafts, result }: RunStep, ms: number): void {
    this.#outbox.count('stepMs', ms);
    this.#outbox.count('deviceMs', result.deviceMs ?? 0);
    this.#outbox.count('pagesRead', result.pagesRead);
    this.#outbox.count('pagesScored', result.pagesScored);
    for (const { tokens } of drafts.values()) {
      this.#outbox.count('draftPasses', tokens.length > 0 ? 1 : 0);
      this.#outbox.count('draftedTokens', tokens.length);
    }
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

  #reportHeld(): void {
    if (this.#isReportHeld) this.#report();
    this.#isReportHeld = false;
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

/** Rows of logits that prompts asked for. */
function scoredRows(plan: readonly PlannedChunk[]): number {
  return plan.reduce((sum, { phase, logits, tokens }) => sum + (phase === 'prefill' && logits === 'all' ? tokens.length : 0), 0);
}

/** Where all ids are pages, pages are whole. */
function kvCacheOf(engine: Engine): KvCache {
  const { pages, pageIds, spec } = engine;
  if (pageIds === pages) return new KvCache(pages, { ...wholePages(pages), release: (page, heads) => { engine.release(page, heads); } });
  return new KvCache(pages, {
    headsPerPage: spec.layers * spec.kvHeads, numIds: pageIds, release: (page, heads) => { engine.release(page, heads); },
  });
}
