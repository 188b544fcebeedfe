/**
 * All sequences that have not ended, waiting or running, and the only place where one begins, starts to
 * run, is preempted and ends: so that each ends exactly once and its pages come back. Decides nothing:
 * scheduler.ts and commit.ts call it.
 *
 *   submit ──▶ waiting ──start──▶ running ──finish | fail | drop──▶ ended
 *                 ▲───preempt────────┘
 */
import type { Engine } from '../engine/engine.ts';
import { newSamplerScratch, Sampler, type SamplerScratch } from '../engine/sampler.ts';
import type { KnownPrefix, KvCache } from '../kvcache/kv-cache.ts';
import { createPageListPolicy } from '../kvcache/page-lists/create.ts';
import { PAGE_TOKENS } from '../kvcache/page-lists/page-list.ts';
import type { FailureCode, FinishReason, GenerationRequest } from './messages.ts';
import { byRank } from './order.ts';
import type { Drafting } from './drafting.ts';
import type { Outbox } from './outbox.ts';
import { Sequence, type Submission } from './sequence.ts';
import type { Tenants } from './tenants.ts';

export interface LiveSequencesParts {
  readonly engine: Engine;
  readonly kv: KvCache;
  readonly tenants: Tenants;
  readonly outbox: Outbox;
  readonly drafting: Pick<Drafting, 'forget'>;
  /** Without it prefixes are shared between the choices of one request only. */
  readonly prefixCache: boolean;
}

export class LiveSequences {
  readonly #parts: LiveSequencesParts;
  readonly #byRequest = new Map<number, Sequence[]>();
  readonly #waiting = new Set<Sequence>();
  /** Best rank first. */
  readonly #running: Sequence[] = [];
  readonly #scratch: SamplerScratch;
  #numSubmitted = 0;
  #numSequences = 0;

  constructor(parts: LiveSequencesParts) {
    this.#parts = parts;
    this.#scratch = newSamplerScratch(parts.engine.spec.vocab);
  }

  get waiting(): ReadonlySet<Sequence> {
    return this.#waiting;
  }

  /** Best rank first. */
  get running(): readonly Sequence[] {
    return this.#running;
  }

  get isEmpty(): boolean {
    return this.#waiting.size === 0 && this.#running.length === 0;
  }

  /** The live sequences of a request, or the one choice of it. */
  find(requestId: number, choice: number | null): Sequence[] {
    const sequences = this.#byRequest.get(requestId) ?? [];
    return sequences.filter((sequence) => choice === null || sequence.choice === choice);
  }

  all(): Sequence[] {
    return [...this.#byRequest.values()].flat();
  }

  /** Adds a request's choices to those that wait, and returns them. */
  submit(request: GenerationRequest, nowMs: number): readonly Sequence[] {
    const submission = this.#submission(request, nowMs);
    const firstSeed = request.sampling.seed ?? randomSeed();
    const sequences: Sequence[] = [];
    for (let choice = 0; choice < request.choices; choice++) {
      const sampler = new Sampler(request.sampling, { ...request, seed: firstSeed + choice, reproducible: isReproducible(request), scratch: this.#scratch });
      const sequence = new Sequence({ id: this.#numSequences++, submission, choice, sampler, leader: sequences[0] ?? null });
      sequences.push(sequence);
      this.#waiting.add(sequence);
      this.#parts.tenants.arrive(request.tenant);
    }
    this.#byRequest.set(request.id, sequences);
    return [...sequences];
  }

  /** From waiting to running, with the pages of a match that was made just now. */
  start(sequence: Sequence, match: KnownPrefix, nowMs: number): void {
    sequence.pages = this.#parts.kv.open(match, { keepsPassed: this.#parts.prefixCache || sequence.request.choices > 1 });
    sequence.computed = match.pages.length * PAGE_TOKENS;
    sequence.resumedLength = sequence.length;
    sequence.state = 'running';
    this.#waiting.delete(sequence);
    const rank = this.#running.findIndex((other) => byRank(sequence, other) < 0);
    this.#running.splice(rank < 0 ? this.#running.length : rank, 0, sequence);
    if (sequence.record.startedMs === null) this.#reportStart(sequence, nowMs);
  }

  /** From running to waiting; what it computed stays known as far as the prefix tree keeps it. */
  preempt(sequence: Sequence): void {
    this.#stopRunning(sequence);
    sequence.computed = 0;
    sequence.wantedRows = 0;
    sequence.state = 'waiting';
    sequence.record.preemptions++;
    this.#waiting.add(sequence);
    this.#parts.outbox.count('preemptions', 1);
    this.#parts.outbox.push({ type: 'preempted', id: sequence.request.id, choice: sequence.choice });
  }

  finish(sequence: Sequence, how: { reason: FinishReason; stopToken: number | null }, nowMs: number): void {
    const metrics = sequence.record.toMetrics(sequence, nowMs);
    this.#end(sequence);
    this.#parts.outbox.push({ type: 'finished', id: sequence.request.id, choice: sequence.choice, ...how, metrics });
  }

  fail(sequence: Sequence, code: FailureCode, message: string): void {
    this.#end(sequence);
    this.#parts.outbox.push({ type: 'failed', id: sequence.request.id, choice: sequence.choice, code, message });
  }

  /** Ends without an event: nobody listens. */
  drop(sequence: Sequence): void {
    this.#end(sequence);
  }

  #submission(request: GenerationRequest, submittedMs: number): Submission {
    const { spec } = this.#parts.engine;
    const policy = createPageListPolicy(request.attention, spec);
    const namespace = JSON.stringify([
      request.cacheSalt,
      policy.prefixNamespace,
      spec.keysDependOnPromptLength ? request.promptIds.length : null,
      this.#parts.prefixCache ? null : request.id,
    ]);
    return { request, policy, namespace, arrival: this.#numSubmitted++, submittedMs, startedMs: null };
  }

  #reportStart(sequence: Sequence, nowMs: number): void {
    const { submission, record, computed: cachedTokens } = sequence;
    record.startedMs = nowMs;
    record.cachedTokens = cachedTokens;
    sequence.highWater = cachedTokens;
    this.#parts.outbox.count('prefixQueryTokens', sequence.promptTokens);
    this.#parts.outbox.count('prefixHitTokens', cachedTokens);
    if (submission.startedMs !== null) return;
    submission.startedMs = nowMs;
    this.#parts.outbox.push({ type: 'started', id: submission.request.id, cachedTokens, queueMs: nowMs - submission.submittedMs });
  }

  #end(sequence: Sequence): void {
    if (sequence.state === 'ended') throw new Error(`choice ${sequence.choice} of request ${sequence.request.id} ended twice`);
    if (sequence.state === 'running') this.#stopRunning(sequence);
    this.#waiting.delete(sequence);
    sequence.state = 'ended';
    this.#parts.tenants.leave(sequence.request.tenant);
    const rest = this.find(sequence.request.id, null).filter((other) => other !== sequence);
    if (rest.length === 0) this.#byRequest.delete(sequence.request.id);
    else this.#byRequest.set(sequence.request.id, rest);
  }

  #stopRunning(sequence: Sequence): void {
    this.#running.splice(this.#running.indexOf(sequence), 1);
    this.#parts.kv.release(sequence.pages!);
    sequence.pages = null;
    this.#parts.engine.forget(sequence.id);
    this.#parts.drafting.forget(sequence.id);
  }
}

/** A seed promises the same text again; knowledge transfer changes it by what was drafted. */
function isReproducible({ sampling, speculation }: GenerationRequest): boolean {
  return sampling.seed !== null && speculation.eta === 0;
}

/** 53 random bits. */
function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high! >>> 11) * 2 ** 32 + low!;
}
