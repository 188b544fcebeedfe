// What drafting gains and what it costs where it is in vain, in the time that passes over long texts take: texts are written
// beforehand, time is counted.
import { describe, expect, test } from 'vitest';
import type { Chunk, Engine } from '../../engine/engine.ts';
import type { SpeculationSettings } from '../../scheduler/messages.ts';
import { SeededRandom } from '../seeded-random.ts';
import { bench, drafting, metricsOf, prompt, request } from './build.ts';
import { LONG_TEXT, scriptedEngine, type PassTimes } from './scripted-engine.ts';

const VOCAB = 1000;
const MEDIUM_TEXT: PassTimes = { plain: 5.6, perToken: 0.6, picked: 2.2, prefill: 0.1 };
/** A small draft model. */
const SMALL: PassTimes = { plain: 1, perToken: 0.2, picked: 1, prefill: 0.05 };

/** Words as a text has them: few are common, many rare, and the common follow each other again and again. */
function words(random: SeededRandom, count: number): number[] {
  return Array.from({ length: count }, () => Math.floor(VOCAB * (random.below(1000) / 1000) ** 3));
}

const random = new SeededRandom(4);
const document = words(random, 12_000);
const passage = (length: number): number[] => document.slice(3000).slice(random.below(8000)).slice(0, length);

interface Asked {
  readonly answer: readonly number[];
  readonly kind: Partial<SpeculationSettings>;
  readonly times?: PassTimes;
  readonly draftEngine?: (clock: { ms: number }) => Engine;
  /** How many requests alike come before the one that is measured. */
  readonly before?: number;
  /** Rows that the target's middle level gives. */
  readonly middle?: 'right' | 'wrong';
}

/** Times as fast as plain decoding, of the last request. */
async function gainOf({ answer, kind, times = LONG_TEXT, draftEngine, before = 0, middle = 'right' }: Asked): Promise<{ gain: number; offReason: string | null }> {
  const clock = { ms: 0 };
  const target = scriptedEngine(Int32Array.from([...document, ...answer]), clock, { times });
  const engine: Engine = middle === 'right' ? target : { ...target, run: async (step) => wrongWherePicked(step, await target.run(step)) };
  const busy = bench({ engine, clock, ...(draftEngine === undefined ? {} : { draftEngine: draftEngine(clock) }) });
  for (let id = 0; id <= before; id++) {
    busy.submit(request(id, { promptIds: Int32Array.from(document), maxTokens: answer.length, speculation: drafting({ force: false, draftTokens: 16, draftBudget: 1024, ...kind }) }));
    await busy.finish();
    expect(busy.tokensOf(id)).toEqual(answer);
  }
  const { decodeMs, speculation } = metricsOf(busy, before);
  return { gain: times.plain * (answer.length - 1) / decodeMs, offReason: speculation!.offReason };
}

function wrongWherePicked(step: readonly Chunk[], result: Awaited<ReturnType<Engine['run']>>): Awaited<ReturnType<Engine['run']>> {
  step.forEach(({ attention }, i) => { if (attention.classes[0]!.pick > 0) (result.logits[i] as Float32Array).reverse(); });
  return result;
}

/** A small model that knows the answer, in which each word tells which one follows. */
function knowing(answer: readonly number[]): (clock: { ms: number }) => Engine {
  const after = new Map(answer.map((token, i) => [token, answer[i + 1] ?? 0]));
  return (clock) => {
    const inner = scriptedEngine(Int32Array.of(), clock, { times: SMALL });
    return { ...inner, run: async (step) => {
      const result = await inner.run(step);
      step.forEach(({ tokens }, i) => {
        const row = result.logits[i] as Float32Array | null;
        if (row !== null) row.fill(-50)[after.get(tokens.at(-1)!) ?? 0] = 20;
      });
      return result;
    } };
  };
}

describe('n-grams', () => {
  const kind = { speculation: 'ngram' } as const;

  test('an answer that quotes decodes several times as fast', async () => {
    expect((await gainOf({ answer: passage(96), kind })).gain).toBeGreaterThan(4);
  });

  test('one that quotes in its own words gains by what it quotes, from the first words of each quotation', async () => {
    const answer = Array.from({ length: 6 }, () => [...words(random, 12), ...passage(48)]).flat();
    const { gain, offReason } = await gainOf({ answer, kind });
    expect(gain).toBeGreaterThan(2);
    expect(offReason).toBeNull(); // Most passes are plain, but most tokens come of the others.
  });

  test('a quotation with a changed word now and then too', async () => {
    const answer = passage(160).map((token, i) => (i % 13 === 12 ? VOCAB - 1 - random.below(50) : token));
    expect((await gainOf({ answer, kind })).gain).toBeGreaterThan(1.5);
  });

  test('an answer that quotes nothing loses nothing', async () => {
    expect((await gainOf({ answer: words(random, 96), kind })).gain).toBeGreaterThan(0.97);
  });

  test('whose proposals are in vain teach it without a pass', async () => {
    // Each word has stood before three others, so that there is always a proposal, and always a wrong one.
    const deceived = passage(200).map((token, i) => (i % 4 === 3 ? VOCAB - 1 - random.below(50) : token));
    expect((await gainOf({ answer: deceived, kind, before: 2 })).gain).toBeGreaterThan(0.95);
  });
});

describe.each([['64K', LONG_TEXT], ['16K', MEDIUM_TEXT]])('at %s what is in vain costs little over 64 tokens', (_, times) => {
  const answer = words(random, 64);
  const nonsense = (clock: { ms: number }): Engine => scriptedEngine(Int32Array.of(), clock, { times: SMALL });

  test.each([0, 3])('rapid, after %i requests like it', async (before) => {
    const { gain, offReason } = await gainOf({ answer, kind: { speculation: 'rapid', draftPromptIds: prompt(9, 4096) }, times, draftEngine: nonsense, before });
    expect(gain).toBeGreaterThan(before === 0 && times === LONG_TEXT ? 0.75 : 0.93);
    expect(offReason).toMatch(/does not pay/);
  });

  test.each([0, 3])('triforce, after %i requests like it', async (before) => {
    const { gain, offReason } = await gainOf({ answer, kind: { speculation: 'triforce', draftLevel: 'none' }, times, middle: 'wrong', before });
    expect(gain).toBeGreaterThan(0.92);
    expect(offReason).toMatch(/does not pay/);
  });
});

describe('triforce over a small model', () => {
  const gain = async (answer: readonly number[], draftLevel: 'none' | 'model', draftEngine?: (clock: { ms: number }) => Engine): Promise<number> =>
    (await gainOf({ answer, kind: { speculation: 'triforce', draftLevel }, times: MEDIUM_TEXT, ...(draftEngine === undefined ? {} : { draftEngine }) })).gain;
  const nonsense = (clock: { ms: number }): Engine => scriptedEngine(Int32Array.of(), clock, { times: SMALL });
  const long = Array.from({ length: 700 }, (_, i) => 200 + i);

  test('that is always wrong does without it', async () => {
    expect(await gain(long, 'model', nonsense) / await gain(long, 'none')).toBeGreaterThan(0.96);
  });

  test('that is right uses it in a long answer, and spares a short one the reading', async () => {
    expect(await gain(long, 'model', knowing(long)) / await gain(long, 'none')).toBeGreaterThan(1.1);
    expect(await gain(long.slice(0, 64), 'model', knowing(long)) / await gain(long.slice(0, 64), 'none')).toBe(1);
  });
});

test('a drafter that is right pays for what it reads in a long answer, and reads nothing for a short one', async () => {
  const answer = Array.from({ length: 600 }, (_, i) => 200 + i); // Each word tells which one follows.
  const right = knowing(answer);
  const kind = { speculation: 'rapid', draftPromptIds: prompt(9, 4096) } as const;
  const long = await gainOf({ answer, kind, draftEngine: right });
  expect(long.gain).toBeGreaterThan(1.5);
  expect(long.offReason).toBeNull();
  const short = await gainOf({ answer: answer.slice(0, 20), kind, draftEngine: right });
  expect(short.gain).toBeGreaterThan(0.97);
  expect(short.offReason).toMatch(/read first/);
});
