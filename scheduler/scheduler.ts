/**
 * Decides what the next step computes: who starts, one token for every stream and room for what is drafted
 * after it, and as much of the waiting prompts beside them as keeps the gap between tokens within its target. When pages run out, the last in
 * rank gives way. Knows token counts, pages and rows; computes nothing and ends nothing but what cannot fit.
 * Called by loop.ts once a step.
 */
import type { KnownPrefix, KvCache } from '../kvcache/kv-cache.ts';
import type { PageRange } from '../kvcache/page-lists/page-list.ts';
import { pagesFor } from '../kvcache/page-lists/lists.ts';
import type { CostModel } from './cost-model.ts';
import type { Drafting } from './drafting.ts';
import type { LiveSequences } from './live-sequences.ts';
import { byPrefill, byTurn } from './order.ts';
import type { Sequence } from './sequence.ts';
import { readsOf } from './sequence-record.ts';
import { reachesScored, unscoredTokens, wholeSpans, type Scheduled } from './step-plan.ts';
import type { Tenants } from './tenants.ts';

export interface SchedulerOptions {
  readonly maxSequences: number;
  /** Tokens per step at most, but for one span of prefill, which always advances. */
  readonly stepTokens: number;
  /** Wanted bound on the time of a step that streams wait for. */
  readonly targetGapMs: number;
}

export interface SchedulerParts {
  readonly live: LiveSequences;
  readonly kv: KvCache;
  readonly tenants: Tenants;
  readonly cost: CostModel;
  readonly drafting: Drafting;
}

/** Share of all KV memory that stays free when a sequence starts beside others, so that those can grow. */
const WATERMARK = 0.01;
/** A step that no stream waits for is bounded too: newcomers and aborts wait for its end. Deep dense prefill reaches it. */
const MAX_STEP_MS = 1000;
/** Tokens a preempted sequence generates before it may be preempted in favour of another again. */
const MIN_PROGRESS_TOKENS = 64;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #live: LiveSequences;
  readonly #kv: KvCache;
  readonly #tenants: Tenants;
  readonly #cost: CostModel;
  readonly #drafting: Drafting;
  /** Of each sequence in the step that is being planned. */
  readonly #scheduled = new Map<Sequence, Scheduled>();
  #numSteps = 0;

  constructor(options: SchedulerOptions, { live, kv, tenants, cost, drafting }: SchedulerParts) {
    this.#options = options;
    this.#live = live;
    this.#kv = kv;
    this.#tenants = tenants;
    this.#cost = cost;
    this.#drafting = drafting;
  }

  /** What the next step computes, pages reserved; empty when there is nothing to do. */
  plan(nowMs: number): Scheduled[] {
    this.#numSteps++;
    this.#scheduled.clear();
    this.#startWaiting(nowMs);
    this.#scheduleDecodes();
    this.#schedulePrefills();
    return [...this.#scheduled.values()];
  }

  /** False, and the sequence has failed, if even the empty pool could not hold its text and a token more. */
  checkFits(sequence: Sequence): boolean {
    const fits = this.#rowsNeeded(sequence) <= this.#kv.numRows;
    if (!fits) this.#failForPages(sequence);
    return fits;
  }

  // ── who starts ──────────────────────────────────────────────────────────────────────────────────────

  /** Strictly in order: whoever does not fit yet is not overtaken, or a long prompt would wait for ever. */
  #startWaiting(nowMs: number): void {
    for (let next = this.#next(); next !== null; next = this.#next()) {
      const hasPlace = this.#live.running.length < this.#options.maxSequences;
      const match = hasPlace ? this.#matchIfFits(next) : null;
      if (match !== null) this.#live.start(next, match, nowMs);
      else if (this.checkFits(next) && !(hasPlace && this.#drafting.releasePages()) && !this.#preemptLessUrgent(next)) return;
    }
  }

  #next(): Sequence | null {
    const order = byTurn((tenant) => this.#tenants.serviceOf(tenant));
    let first: Sequence | null = null;
    for (const sequence of this.#live.waiting) {
      if (!sequence.isBlocked && (first === null || order(sequence, first) < 0)) first = sequence;
    }
    return first;
  }

  /**
   * A sequence starts only when its whole text fits beside what the running ones are still to take, so that
   * it is not preempted half-way. Matching a long text costs time: it is done again only when the memory
   * that was missing last time may be there.
   */
  #matchIfFits(sequence: Sequence): KnownPrefix | null {
    const spoken = this.#live.running.reduce((sum, other) => sum + Math.max(0, this.#rowsNeeded(other) - this.#kv.rowsHeld(other.pages!)), 0);
    const reserve = spoken + (this.#live.running.length === 0 ? 0 : Math.ceil(WATERMARK * this.#kv.numRows));
    const available = this.#kv.freeRows + this.#kv.cachedRows;
    if (available - reserve < sequence.wantedRows) return null;

    const match = this.#match(sequence);
    const missing = this.#rowsNeeded(sequence) - this.#kv.rowsOf(match.pages.length, match.passing, match.passed);
    const availableAfter = this.#kv.rowsAvailableAfter(match);
    if (missing <= availableAfter - reserve) return match;
    sequence.wantedRows = missing + available - availableAfter;
    return null;
  }

  #match(sequence: Sequence): KnownPrefix {
    const unscored = unscoredTokens(sequence);
    const known = unscored < sequence.promptTokens ? sequence.text.subarray(0, unscored + 1) : sequence.text;
    return this.#kv.match(sequence.submission.namespace, known, sequence.policy);
  }

  #preemptLessUrgent(sequence: Sequence): boolean {
    const victim = this.#live.running.findLast((other) =>
      other.request.priority > sequence.request.priority && other.hasProgressed(MIN_PROGRESS_TOKENS));
    if (victim === undefined) return false;
    this.#live.preempt(victim);
    return true;
  }

  // ── how many tokens ─────────────────────────────────────────────────────────────────────────────────

  #scheduleDecodes(): void {
    for (const sequence of [...this.#live.running]) {
      if (sequence.isDecoding && this.#reserve(sequence, 1)) this.#schedule(sequence, 1);
    }
    this.#scheduleDrafts();
  }

  /** Nobody gives way for a draft: where pages are short there is none. */
  #scheduleDrafts(): void {
    const decoding = [...this.#scheduled.keys()];
    for (const [sequence, length] of this.#drafting.lengths(decoding, Math.max(0, this.#options.stepTokens - decoding.length))) {
      if (length === 0) continue;
      if (this.#kv.reserve(sequence.pages!, sequence.length + length)) this.#schedule(sequence, 1, length);
      else sequence.speculation!.plain('no KV page was free for drafted tokens');
    }
  }

  #schedule(sequence: Sequence, tokens: number, draftTokens = 0): void {
    this.#scheduled.set(sequence, { sequence, tokens, draftTokens });
  }

  /** What is left of the step's tokens and of the time that streams may wait; the first always gets a span. */
  #schedulePrefills(): void {
    const numDecodes = this.#scheduled.size;
    let tokensLeft = this.#options.stepTokens;
    for (const { tokens, draftTokens } of this.#scheduled.values()) tokensLeft -= tokens + draftTokens;
    let msLeft = numDecodes === 0 ? MAX_STEP_MS : this.#options.targetGapMs - this.#cost.decodeStepMs;
    for (const sequence of this.#prefilling()) {
      if (sequence.state !== 'running') continue; // Gave way to one before it.
      const msPerToken = this.#msPerToken(sequence, tokensLeft);
      const isFirst = this.#scheduled.size === numDecodes;
      const allowance = Math.min(tokensLeft, tokensWithin(msLeft, msPerToken, numDecodes === 0 ? tokensLeft : 0));
      const tokens = wholeSpans(sequence, isFirst ? Math.max(allowance, sequence.policy.spanTokens) : allowance);
      if (tokens === 0 || !this.#reserve(sequence, tokens)) continue;
      this.#schedule(sequence, tokens);
      tokensLeft -= tokens;
      msLeft -= tokens * msPerToken;
    }
  }

  #prefilling(): Sequence[] {
    const order = byPrefill((tenant) => this.#tenants.serviceOf(tenant), this.#numSteps);
    return this.#live.running.filter((sequence) => !sequence.isDecoding).sort(order);
  }

  /** At the sequence's present depth, and as if all of `tokens` were scored if some are. */
  #msPerToken(sequence: Sequence, tokens: number): number {
    const { policy, pages, computed } = sequence;
    const plan = policy.plan(pages!.table.entries, computed, 1, 'prefill');
    const scoringMs = reachesScored(sequence, computed + tokens) ? this.#cost.scoringMsPerToken : 0;
    return this.#cost.prefillMsPerToken(readsOf(plan, 0).tokens) + scoringMs;
  }

  // ── pages ───────────────────────────────────────────────────────────────────────────────────────────

  /** Takes pages for the next tokens, from drafters and from those behind in rank if need be. False if the sequence itself gave way. */
  #reserve(sequence: Sequence, tokens: number): boolean {
    while (sequence.state === 'running' && !this.#kv.reserve(sequence.pages!, sequence.computed + tokens)) {
      if (this.#drafting.releasePages()) continue;
      const victim = this.#victimFor(sequence);
      this.#scheduled.delete(victim);
      if (this.#live.running.length === 1) this.#failForPages(victim);
      else this.#live.preempt(victim);
    }
    return sequence.state === 'running';
  }

  /** The last in rank that has made progress, else the last; never one ahead of the sequence in need. */
  #victimFor(sequence: Sequence): Sequence {
    const behind = this.#live.running.slice(this.#live.running.indexOf(sequence) + 1);
    return behind.findLast((other) => other.hasProgressed(MIN_PROGRESS_TOKENS)) ?? behind.at(-1) ?? sequence;
  }

  /** For the text and the token after it; less when the policy gives memory back on the way, a step at a time. */
  #rowsNeeded({ policy, length }: Sequence): number {
    const step = pagesFor(this.#options.stepTokens + policy.spanTokens);
    const all = pagesFor(length + 1);
    const given = ({ from, to }: PageRange): number => Math.max(0, to - from - step);
    const passed = { from: 0, to: given(policy.passedPages(length)) };
    return this.#kv.rowsOf(all - given(policy.releasablePages(length)), policy.passingHeads, passed);
  }

  #failForPages(sequence: Sequence): void {
    const { length } = sequence;
    this.#live.fail(sequence, 'kv_capacity', `A text of ${length} tokens needs more KV memory than there is (${this.#kv.numPages} pages of 64 tokens).`);
  }
}

/** `unmeasured`: what to do before any cost is known; beside streams only the smallest chunk is sure to be short. */
function tokensWithin(ms: number, msPerToken: number, unmeasured: number): number {
  return msPerToken === 0 ? unmeasured : Math.max(0, Math.floor(ms / msPerToken));
}
