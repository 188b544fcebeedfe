import { expect, test } from 'vitest';
import { FakeEngine } from '../../engine/fake/fake-engine.ts';
import type { Chunk, Engine } from '../../engine/engine.ts';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import { NO_SPECULATION, type GenerationRequest, type SequenceEvent, type SpeculationSettings, type StepCounters } from '../../scheduler/messages.ts';
import { chunksOf, type PlannedChunk } from '../../scheduler/step-plan.ts';
import { bench, dense, drafting, prompt, request, timed, type Bench } from './build.ts';
import { ListEngine } from './list-engine.ts';

const SEED = Number(process.env['SCHEDULE_SEED'] ?? 20_261);
const MAX_LIVE = 14;
const PAGES = 40;
const STOP = 299;

const lserve: Partial<AttentionSettings> = { attention: 'lserve', tokenBudget: 320 };
const policies: Partial<AttentionSettings>[] = [
  {}, { attention: 'streaming' }, { attention: 'streaming', renumberPositions: true }, lserve, lserve,
  {}, {}, { ...lserve, selectionInterval: 100 }, { ...lserve, sparsePrefill: false },
  { ...lserve, streamingHeads: 0.5 }, { ...lserve, streamingHeads: 0.5 }, { ...lserve, streamingHeads: 0.25, sparsePrefill: false }, { ...lserve, streamingHeads: 1 },
];

const everywhere: Partial<SpeculationSettings>[] = [{ speculation: 'ngram' }];
const notStreaming: Partial<SpeculationSettings>[] = [{ speculation: 'rapid' }, { speculation: 'rapid', draftLevel: 'none' }];
const onlyDense: Partial<SpeculationSettings>[] = [
  { speculation: 'triforce' }, { speculation: 'triforce', draftLevel: 'ngram', draftTokens: 11 }, { speculation: 'triforce', draftLevel: 'model' },
];

type Random = (n: number) => number;
type End = SequenceEvent & { type: 'finished' | 'failed' };
const keyOf = ({ id, choice }: { id: number; choice: number }): string => `${id} ${choice}`;

/** Uniform integers below n, the same for the same seed. */
function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  return (n) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9 >>> 0;
    return (Math.imul(state ^ (state >>> 13), 0x297a2d39) >>> 0) % n;
  };
}

/** A request whose prompt begins like others' prompts, or continues the text of one that has ended. */
function randomRequest(id: number, random: Random, texts: Int32Array[]): GenerationRequest {
  const shared = texts.length > 0 && random(3) === 0 ? texts[random(texts.length)]! : prompt(random(2), random(800));
  const attention = { ...dense, ...policies[random(policies.length)]! };
  const own = prompt(1000 + id, 1 + random(random(10) === 0 ? 900 : 150));
  return request(id, {
    tenant: 'abc'[random(3)]!,
    promptIds: Int32Array.from([...shared, ...own].map((token) => token % STOP)),
    choices: 1 + (random(5) === 0 ? random(3) : 0),
    maxTokens: random(20) === 0 ? 0 : 1 + random(random(3) === 0 ? 400 : 80),
    stopTokenIds: random(3) > 0 ? [STOP] : [],
    attention,
    priority: random(4) === 0 ? random(3) - 1 : 0,
    deadlineMs: random(15) === 0 ? random(1500) : null,
    cacheSalt: random(8) === 0 ? 'salt' : '',
    promptLogprobsFrom: random(25) === 0 ? 1 + random(200) : null,
    progress: random(10) === 0,
    speculation: randomSpeculation(id, attention, random),
  });
}

/** About half of the requests draft, most of these whether it pays or not; with the kinds that the API lets go together. */
function randomSpeculation(id: number, { attention }: AttentionSettings, random: Random): SpeculationSettings {
  const draftings = { dense: [...everywhere, ...notStreaming, ...onlyDense], lserve: [...everywhere, ...notStreaming], streaming: everywhere }[attention];
  if (random(2) === 0) return NO_SPECULATION;
  const draftPromptIds = prompt(500 + id, 1 + random(150)).map((token) => token % STOP);
  return drafting({ ...draftings[random(draftings.length)]!, draftPromptIds, force: random(4) > 0 });
}

/** A random schedule of arrivals, aborts and time, with integrity checked after every step. */
class Schedule {
  readonly requests: GenerationRequest[] = [];
  readonly dropped = new Set<string>();
  readonly stopped = new Set<string>();
  readonly ends = new Map<string, End>();
  readonly #random: Random;
  readonly #busy: Bench;
  #numSeen = 0;

  constructor(busy: Bench, random: Random) {
    this.#busy = busy;
    this.#random = random;
  }

  async step(): Promise<void> {
    if (this.#numLive < MAX_LIVE && this.#random(4) === 0) this.#arrive();
    if (this.requests.length > 0 && this.#random(40) === 0) this.#abort();
    this.#busy.clock.ms += this.#random(3);
    await this.#busy.loop.step();
    this.#busy.loop.checkIntegrity();
    this.readEnds();
  }

  readEnds(): void {
    for (; this.#numSeen < this.#busy.events.length; this.#numSeen++) {
      const event = this.#busy.events[this.#numSeen]!;
      if (event.type !== 'finished' && event.type !== 'failed') continue;
      expect(this.ends.has(keyOf(event)), `sequence ${keyOf(event)} ended twice`).toBe(false);
      expect(this.dropped.has(keyOf(event)), `sequence ${keyOf(event)} was dropped, then ended`).toBe(false);
      this.ends.set(keyOf(event), event);
    }
  }

  get #numLive(): number {
    return this.requests.reduce((sum, { choices }) => sum + choices, 0) - this.ends.size - this.dropped.size;
  }

  #arrive(): void {
    this.requests.push(randomRequest(this.requests.length, this.#random, this.#lastTexts()));
    this.#busy.submit(this.requests.at(-1)!);
  }

  /** Prompt and answer of recent requests, as a next turn would repeat them. */
  #lastTexts(): Int32Array[] {
    const ended = this.requests.slice(-8).filter(({ id, promptIds }) => this.ends.has(keyOf({ id, choice: 0 })) && promptIds.length < 900);
    return ended.map(({ id, promptIds }) => Int32Array.from([...promptIds, ...this.#busy.tokensOf(id)]));
  }

  #abort(): void {
    const { id, choices } = this.requests[Math.max(0, this.requests.length - 1 - this.#random(10))]!;
    const choice = this.#random(2) === 0 ? null : this.#random(choices);
    const reason = this.#random(2) === 0 ? 'client' : 'stop';
    this.#busy.loop.receive({ type: 'abort', id, choice, reason });
    for (let i = 0; i < choices; i++) {
      const key = keyOf({ id, choice: i });
      const isLive = !this.ends.has(key) && !this.dropped.has(key);
      if (isLive && (choice === null || choice === i)) (reason === 'client' ? this.dropped : this.stopped).add(key);
    }
  }
}

/** What a request gives when nothing else runs, memory is plenty, pages keep all their rows and chunks are large. */
async function alone(each: GenerationRequest, engine: Engine): Promise<number[]> {
  const quiet = bench({ engine: { ...timed(engine, { ms: 0 }), pageIds: engine.pages }, stepTokens: 4096 });
  quiet.submit({ ...each, choices: 1, deadlineMs: null, speculation: NO_SPECULATION });
  await quiet.finish();
  return quiet.tokensOf(each.id);
}

/** `engine`, counting the rows that pages lose before they are free. */
function thinning<E extends Engine>(engine: E): { engine: E; rows: () => number } {
  let rows = 0;
  const release = engine.release.bind(engine);
  engine.release = (page, heads) => {
    rows += heads?.length ?? 0;
    release(page, heads);
  };
  return { engine, rows: () => rows };
}

/**
 * `engine`, as one that steps are prepared for, counting those that were run so: they are what is planned without foresight,
 * and the pages that they name are those that they named when they were prepared.
 */
function preparing(engine: Engine): { engine: Engine; steps: () => number } {
  let prepared: readonly Chunk[] = [];
  let named: unknown = null;
  const namedBy = (step: readonly Chunk[]) => step.map(({ pageTable, attention }) => structuredClone({ pageTable: pageTable.slice(), classes: attention.classes }));
  let steps = 0;
  const run: Engine['run'] = (step) => {
    if (step === prepared) {
      steps++;
      expect(namedBy(step)).toEqual(named);
      for (const chunk of step as readonly PlannedChunk[]) expect([chunk]).toEqual(chunksOf({ sequence: chunk.sequence, tokens: 1, draftTokens: 0 }, null));
    }
    return engine.run(step);
  };
  return { engine: { ...engine, run, prepare: (step) => { [prepared, named] = [step, namedBy(step)]; } }, steps: () => steps };
}

const engines = [
  { name: 'fake engine', steps: 10_000, create: (pages: number) => new FakeEngine({ pages, vocab: 300, headOrder: Int32Array.of(0, 1, 2, 3), stop: { token: STOP, share: 0.01 } }) },
  { name: 'engine that feels every list', steps: 3_000, create: (pages: number) => new ListEngine(pages) },
  { name: 'engine that prepares steps', steps: 3_000, create: (pages: number) => new ListEngine(pages) },
  { name: 'engine with a sliding window', steps: 3_500, create: (pages: number) => new ListEngine(pages, { slidingWindow: [null, 200] }) },
];

test.each(engines)(`$steps random steps on the $name keep integrity, end every request once, and change no result (SCHEDULE_SEED=${SEED})`, async ({ name, steps, create }) => {
  const clock = { ms: 0 };
  const { engine, rows } = thinning(create(PAGES));
  const prepares = preparing(timed(engine, clock));
  const isPreparing = name === 'engine that prepares steps';
  const busy = bench({ engine: isPreparing ? prepares.engine : timed(engine, clock), draftEngine: create(12), clock, maxSequences: 8, stepTokens: 256, targetGapMs: 12 });
  const schedule = new Schedule(busy, randomFrom(SEED));
  for (let step = 0; step < steps; step++) await schedule.step();
  await busy.finish();
  schedule.readEnds();
  busy.loop.checkIntegrity();
  expect(busy.loop.gauges).toMatchObject({ pagesHeld: 0, runningSequences: 0, waitingSequences: 0, prefillBacklogTokens: 0 });

  const tokens = new Map<string, number[]>();
  for (const event of busy.events) {
    if (event.type === 'tokens') tokens.set(keyOf(event), [...(tokens.get(keyOf(event)) ?? []), ...event.tokens]);
  }
  for (const each of schedule.requests) {
    const expected = await alone(each, create(64));
    for (let choice = 0; choice < each.choices; choice++) {
      const key = keyOf({ id: each.id, choice });
      const got = tokens.get(key) ?? [];
      expect(got, `tokens of sequence ${key}`).toEqual(expected.slice(0, got.length));
      if (schedule.dropped.has(key)) continue;
      const end = schedule.ends.get(key);
      expect(end, `sequence ${key} never ended`).toBeDefined();
      if (end?.type === 'failed') expect(end.code, end.message).not.toBe('engine_failed');
      if (end?.type !== 'finished') continue;
      if (!schedule.stopped.has(key)) expect(got).toEqual(expected);
      expect(end.metrics.generatedTokens).toBe(got.length);
      if (got.length > 0) expect(end.metrics.cachedTokens + end.metrics.computedTokens).toBe(each.promptIds.length);
      if (end.metrics.preemptions === 0) expect(end.metrics.recomputedTokens).toBe(0);
    }
  }

  const sum = (name: keyof StepCounters): number => busy.counters.reduce((total, counters) => total + counters[name], 0);
  const codes = new Set([...schedule.ends.values()].map((end) => (end.type === 'failed' ? end.code : end.reason)));
  console.log({
    seed: SEED, requests: schedule.requests.length, ended: schedule.ends.size, dropped: schedule.dropped.size, codes: [...codes],
    drafted: sum('draftedTokens'), accepted: sum('acceptedTokens'), preemptions: sum('preemptions'), recomputed: sum('recomputedTokens'), hits: sum('prefixHitTokens'), rows: rows(), prepared: prepares.steps(),
  });
  // The schedule must have been a hard one.
  expect(rows()).toBeGreaterThan(500);
  expect(sum('preemptions')).toBeGreaterThan(10);
  expect(sum('recomputedTokens')).toBeGreaterThan(1000);
  expect(sum('prefixHitTokens')).toBeGreaterThan(5000);
  expect(sum('draftedTokens') - sum('acceptedTokens')).toBeGreaterThan(1000);
  expect(sum('acceptedTokens')).toBeGreaterThan(20);
  if (isPreparing) expect(prepares.steps()).toBeGreaterThan(100);
  if (steps === 10_000) expect(codes).toContain('deadline_exceeded');
}, 300_000);
