// Speculation through the whole loop, on a model small enough for the reference engine: what is sampled, what stays in KV
// memory, what ends an answer, and where drafting is given up.
import { afterAll, describe, expect, test } from 'vitest';
import type { Chunk, Engine } from '../../engine/engine.ts';
import { newSamplerScratch, Sampler } from '../../engine/sampler.ts';
import { NO_SPECULATION, type GenerationRequest, type SpeculationSettings } from '../../scheduler/messages.ts';
import { chiSquareDeviation } from '../engine/chi-square.ts';
import { makeReference } from '../engine/engine-bench.ts';
import { writeTinyModel } from '../tiny-model.ts';
import { bench, dense, drafting, metricsOf, prompt, request, timed } from './build.ts';
import { ListEngine } from './list-engine.ts';

const VOCAB = 8;
const PAGES = 64;
const toy = { vocab: VOCAB, layers: 1, heads: 2, kvHeads: 1, hidden: 8, headDim: 8, inner: 8 };
const target = writeTinyModel({ ...toy, seed: 1 });
const drafter = writeTinyModel({ ...toy, seed: 1, inner: 16 });
afterAll(() => { target.remove(); drafter.remove(); });

/** Longer than the middle level's budget, so that it reads less than the target. */
const longPrompt = prompt(1, 350).map((token) => token % VOCAB);
const kinds: [string, Partial<SpeculationSettings>][] = [
  ['ngram', { speculation: 'ngram' }],
  ['triforce alone', { speculation: 'triforce', draftLevel: 'none' }],
  ['triforce over n-grams', { speculation: 'triforce', draftLevel: 'ngram' }],
  ['triforce over a model', { speculation: 'triforce', draftLevel: 'model' }],
  ['rapid', { speculation: 'rapid', draftPromptIds: longPrompt.slice(20, 60) }],
];
/** Takes pages of the target's, and none while others wait. */
const selfDrafting: typeof kinds = [['rapid, drafting for itself', { speculation: 'rapid', draftLevel: 'none', draftPromptIds: longPrompt.slice(20, 60) }]];
const samplings = [{ temperature: 0.7, topP: 0.9 }, { temperature: 1, topP: 0.9 }];

type Sampling = Partial<GenerationRequest['sampling']>;

function asked(id: number, speculation: SpeculationSettings, sampling: Sampling, changes: Partial<GenerationRequest> = {}): GenerationRequest {
  const each = request(id, { promptIds: longPrompt, maxTokens: 3, speculation, ...changes });
  return { ...each, sampling: { ...each.sampling, seed: null, ...sampling } };
}

/** Joint distribution of the tokens after the prompt, by running every text there is. [vocab ** tokens] */
async function jointLaw(engine: Engine, tokens: number, sampling: Sampling): Promise<Float64Array> {
  const law = new Float64Array(VOCAB ** tokens);
  const rows = new Map<string, Float64Array>();
  for (let outcome = 0; outcome < law.length; outcome++) {
    const text = Array.from({ length: tokens }, (_, i) => Math.floor(outcome / VOCAB ** i) % VOCAB);
    let probability = 1;
    for (let i = 0; i < tokens && probability > 0; i++) {
      const key = text.slice(0, i).join();
      if (!rows.has(key)) rows.set(key, await rowAfter(engine, text.slice(0, i), sampling));
      probability *= rows.get(key)![text[i]!]!;
    }
    law[outcome] = probability;
  }
  return law;
}

async function rowAfter(engine: Engine, tail: number[], sampling: Sampling): Promise<Float64Array> {
  const tokens = Int32Array.from([...longPrompt, ...tail]);
  const pageTable = Int32Array.from({ length: Math.ceil(tokens.length / 64) }, (_, i) => i);
  const attention = { classes: [{ fixed: new Int32Array(0), positionDelta: null, candidates: new Int32Array(0), pick: 0, pickPer: 'kvHead', tokens: 0 } as const], classOf: new Uint8Array(engine.spec.layers * engine.spec.kvHeads), selection: 'fresh' } as const;
  const { logits } = await engine.run([{ phase: 'prefill', sequenceId: 9, tokens, start: 0, pageTable, attention, promptTokens: longPrompt.length, logits: 'last' }]);
  const settings = { ...asked(0, NO_SPECULATION, sampling).sampling };
  return new Sampler(settings, { seed: 1, promptIds: tokens, stopTokenIds: [], minTokens: 0, reproducible: false, scratch: newSamplerScratch(VOCAB) }).distribution(logits[0]!);
}

describe('what is sampled has the joint distribution of plain decoding', () => {
  const soft = (layers: number): Engine => new ListEngine(PAGES, { vocab: VOCAB, layers, slidingWindow: new Array<null>(layers).fill(null) }, { soft: true });

  test.each(samplings.flatMap((sampling) => kinds.map(([name, kind]) => ({ name, kind, sampling }))))('$name at $sampling', async ({ kind, sampling }) => {
    const law = await jointLaw(soft(2), 3, sampling);
    const busy = bench({ engine: soft(2), draftEngine: soft(1), maxSequences: 16 });
    const counts = new Float64Array(law.length);
    const texts: number[][] = [];
    const samples = 3000;
    // One token more than is compared: the last of an answer is never drafted.
    busy.submit(asked(0, drafting({ ...kind, draftTokens: 3 }), sampling, { choices: samples, maxTokens: 4 }));
    await busy.finish();
    for (const event of busy.events) if (event.type === 'tokens') texts[event.choice] = [...(texts[event.choice] ?? []), ...event.tokens];
    for (const text of texts) counts[text.slice(0, 3).reduce((sum, token, i) => sum + token * VOCAB ** i, 0)]!++;
    expect(chiSquareDeviation(counts, law)).toBeLessThan(4);
    const drafted = busy.counters.reduce((sum, { draftedTokens }) => sum + draftedTokens, 0);
    const accepted = busy.counters.reduce((sum, { acceptedTokens }) => sum + acceptedTokens, 0);
    expect(drafted).toBeGreaterThan(samples / 4);
    expect(accepted).toBeGreaterThan(samples / 20);
    expect(accepted).toBeLessThan(0.95 * drafted);
  }, 120_000);
});

describe('an answer with drafts', async () => {
  const engine = await makeReference(target, PAGES);
  const draftEngine = await makeReference(drafter, PAGES);
  const both = async (kind: Partial<SpeculationSettings>, sampling: Sampling, changes: Partial<GenerationRequest>) => {
    const answers = await Promise.all([NO_SPECULATION, drafting(kind)].map(async (speculation) => {
      const busy = bench({ engine: await makeReference(target, PAGES), draftEngine });
      busy.submit(asked(1, speculation, sampling, { maxTokens: 40, ...changes }));
      await busy.finish();
      busy.loop.checkIntegrity();
      return { busy, tokens: busy.tokensOf(1), metrics: metricsOf(busy, 1), end: busy.endOf(1) };
    }));
    return { plain: answers[0]!, drafted: answers[1]! };
  };

  describe.each([...kinds, ...selfDrafting])('%s', (_, kind) => {
    test.each<[string, Sampling, Partial<GenerationRequest>]>([
      ['greedy', { temperature: 0 }, {}],
      ['a seed', { temperature: 1, seed: 5 }, {}],
      ['a seed and penalties', { temperature: 1, seed: 6, repetitionPenalty: 1.3, frequencyPenalty: 0.4, presencePenalty: 0.2 }, {}],
      ['greedy with penalties and a bias', { temperature: 0, frequencyPenalty: 0.9, logitBias: [[3, 2]] }, {}],
      ['stop tokens', { temperature: 0, frequencyPenalty: 0.5 }, { stopTokenIds: [2, 5] }],
      ['stop tokens not before 20', { temperature: 0, frequencyPenalty: 0.5 }, { stopTokenIds: [2, 5], minTokens: 20 }],
      ['one token', { temperature: 0 }, { maxTokens: 1 }],
      ['two tokens', { temperature: 0 }, { maxTokens: 2 }],
      ['log-probabilities', { temperature: 0 }, { logprobs: 2 }],
    ])('%s: is the one of plain decoding', async (_, sampling, changes) => {
      const { plain, drafted } = await both(kind, sampling, changes);
      expect(drafted.tokens).toEqual(plain.tokens);
      const ends = [plain, drafted].map(({ end }) => (end.type === 'finished' ? [end.reason, end.stopToken] : [end.code]));
      expect(ends[1]).toEqual(ends[0]);
      const logprobs = [plain, drafted].map(({ busy }) => busy.events.flatMap((event) => (event.type === 'tokens' ? event.logprobs ?? [] : [])));
      expect(logprobs[1]!.map(({ token, top }) => [token, top.map((each) => each.token)])).toEqual(logprobs[0]!.map(({ token, top }) => [token, top.map((each) => each.token)]));
      logprobs[0]!.forEach(({ logprob }, i) => { expect(logprobs[1]![i]!.logprob).toBeCloseTo(logprob, 9); });
    });

    test('counts what it did', async () => {
      const { drafted: { metrics, tokens, busy } } = await both(kind, { temperature: 0 }, {});
      const { verifiedPasses, plainPasses, levels } = metrics.speculation!;
      expect(verifiedPasses).toBeGreaterThan(0);
      expect(metrics.draftedTokens).toBe(levels.at(-1)!.draftedTokens);
      // The first token comes from the prefill, each pass gives one, each accepted token is one more.
      expect(1 + verifiedPasses + plainPasses + metrics.acceptedTokens).toBe(tokens.length);
      const sum = (name: 'draftPasses' | 'draftedTokens' | 'acceptedTokens') => busy.counters.reduce((total, counters) => total + counters[name], 0);
      expect([sum('draftPasses'), sum('draftedTokens'), sum('acceptedTokens')]).toEqual([verifiedPasses, metrics.draftedTokens, metrics.acceptedTokens]);
    });
  });

  test('leaves the keys and values of plain decoding behind, rejected drafts or not', async () => {
    const rowsAfter = await Promise.all([NO_SPECULATION, ...[...kinds, ...selfDrafting].map(([, kind]) => drafting(kind))].map(async (speculation) => {
      const seen = await makeReference(target, PAGES);
      const busy = bench({ engine: seen, draftEngine });
      busy.submit(asked(1, speculation, { temperature: 0, frequencyPenalty: 0.3 }, { maxTokens: 60 }));
      await busy.finish();
      // The pages of the answer are found again by whoever asks for a text that begins alike; nothing of them is computed anew.
      const text = Int32Array.from([...longPrompt, ...busy.tokensOf(1)]);
      busy.submit(asked(2, NO_SPECULATION, { temperature: 0 }, { promptIds: text, maxTokens: 1, logprobs: 5 }));
      await busy.finish();
      expect(metricsOf(busy, 2).cachedTokens).toBe(384);
      return busy.events.flatMap((event) => (event.id === 2 && event.type === 'tokens' ? event.logprobs! : []));
    }));
    for (const rows of rowsAfter.slice(1)) {
      expect(rows[0]!.top.map(({ token }) => token)).toEqual(rowsAfter[0]![0]!.top.map(({ token }) => token));
      rows[0]!.top.forEach(({ logprob }, i) => { expect(logprob).toBeCloseTo(rowsAfter[0]![0]!.top[i]!.logprob, 9); });
    }
  });

  test('under lserve reads what plain decoding reads', async () => {
    for (const [, kind] of kinds.filter(([, { speculation }]) => speculation !== 'triforce')) {
      const { plain, drafted } = await both(kind, { temperature: 0, frequencyPenalty: 0.2 }, { attention: { ...dense, attention: 'lserve', tokenBudget: 320 }, maxTokens: 60 });
      expect(drafted.tokens).toEqual(plain.tokens);
      expect(drafted.metrics.draftedTokens).toBeGreaterThan(drafted.metrics.acceptedTokens);
    }
  });

  test('engines are as they were', () => {
    expect([engine.pages, draftEngine.pages]).toEqual([PAGES, PAGES]);
  });
});

describe('where drafting does not pay', () => {
  /** The fake engine's texts cannot be guessed; every token of a pass costs as much as a pass. */
  const dear = (): { engine: Engine; clock: { ms: number }; steps: readonly Chunk[][] } => {
    const clock = { ms: 0 };
    const { engine } = bench({ vocab: 1000 });
    const steps: Chunk[][] = [];
    return { clock, steps, engine: { ...timed(engine, clock, 20), run: (step) => { steps.push([...step]); clock.ms += 20 * step.reduce((sum, { tokens }) => sum + tokens.length, 0); return engine.run(step); } } };
  };

  test('it is given up, and the answer says so', async () => {
    const { engine, clock } = dear();
    const busy = bench({ engine, clock });
    busy.submit(request(1, { promptIds: prompt(1, 400), maxTokens: 200, speculation: drafting({ speculation: 'rapid', draftPromptIds: prompt(2, 30), force: false }) }));
    await busy.finish();
    const { speculation } = metricsOf(busy, 1);
    expect(speculation!.offReason).toMatch(/does not pay/);
    expect(speculation!.verifiedPasses).toBeLessThan(25);
    expect(speculation!.plainPasses).toBeGreaterThan(170);
  });

  test('unless it is forced', async () => {
    const { engine, clock } = dear();
    const busy = bench({ engine, clock });
    busy.submit(request(1, { promptIds: prompt(1, 400), maxTokens: 50, speculation: drafting({ speculation: 'rapid', draftPromptIds: prompt(2, 30) }) }));
    await busy.finish();
    expect(metricsOf(busy, 1).speculation).toMatchObject({ offReason: null });
  });

  test('and where it does it goes on, as long as the draft may be', async () => {
    const clock = { ms: 0 };
    const inner = bench({ vocab: 1000 }).engine;
    // Every step takes as long, however many tokens it has: and the middle level of the fake engine is always right.
    const engine: Engine = { ...timed(inner, clock), run: (step) => { clock.ms += step[0]!.attention.classes[0]!.pick > 0 ? 1 : 50; return inner.run(step); } };
    const busy = bench({ engine, clock });
    busy.submit(request(1, { promptIds: prompt(1, 400), maxTokens: 200, speculation: drafting({ speculation: 'triforce', draftLevel: 'none', draftTokens: 8, force: false }) }));
    await busy.finish();
    const { speculation, acceptedTokens } = metricsOf(busy, 1);
    expect(speculation!.offReason).toBeNull();
    expect(acceptedTokens / speculation!.verifiedPasses).toBeGreaterThan(6);
  });

  test('a step has no more tokens than it may, drafts included', async () => {
    const { engine, clock, steps } = dear();
    const busy = bench({ engine, clock, stepTokens: 20 });
    for (let id = 0; id < 8; id++) busy.submit(request(id, { maxTokens: 20, speculation: drafting({ speculation: 'rapid', draftPromptIds: prompt(2, 30), draftTokens: 16 }) }));
    await busy.finish();
    for (const step of steps) {
      if (step.every(({ phase, sequenceId }) => phase === 'decode' && sequenceId >= 0)) expect(step.reduce((sum, { tokens }) => sum + tokens.length, 0)).toBeLessThanOrEqual(20);
    }
  });
});
