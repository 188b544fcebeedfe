/**
 * Streaming heads with rows of their own, behind the scheduler: the tokens are those of pages that stay whole, also when
 * rows are poisoned as they are given back, and the memory that a text holds falls. Knows the Engine interface only.
 * Called by one test file per engine.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Engine } from '../../engine/engine.ts';
import type { GenerationRequest } from '../../scheduler/messages.ts';
import { bench, dense, drafting, request, timed } from '../scheduler/build.ts';
import { writeTinyModel, type TinyModel } from '../tiny-model.ts';

export interface PassedHeadsMaker<E extends Engine> {
  /** With 40 pages. */
  readonly open: (model: TinyModel, headOrder: Int32Array) => Promise<E>;
  /** Writes over the rows of these heads, as another text might. */
  readonly poison: (engine: E, page: number, heads: Int32Array) => void;
}

const half = { ...dense, attention: 'lserve', tokenBudget: 320, streamingHeads: 0.5 } as const;

/** A text with itself repeated in it, so that n-grams find something. */
function prompt(seed: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (Math.imul(seed + (i % 150), 0x9e3779b1) >>> 8) % 300);
}

const requests: GenerationRequest[] = [
  request(1, { promptIds: prompt(1, 700), maxTokens: 90, attention: half }),
  request(2, { promptIds: prompt(1, 690), maxTokens: 40, attention: { ...half, selectionInterval: 16 }, speculation: drafting({}) }),
  request(3, { promptIds: prompt(3, 500), maxTokens: 60, attention: { ...half, streamingHeads: 1 } }),
  request(4, { promptIds: prompt(4, 600), maxTokens: 60 }),
  request(5, { promptIds: prompt(1, 760), maxTokens: 30, choices: 2, attention: half }),
];

/** Registers the cases; call it in a `describe`. */
export function passedHeadsCases<E extends Engine>({ open, poison }: PassedHeadsMaker<E>): void {
  let model: TinyModel;
  let engine: E;
  beforeAll(async () => {
    model = writeTinyModel({ layers: 3, vocab: 300 });
    engine = await open(model, Int32Array.of(5, 0, 2, 3, 1, 4));
  });
  afterAll(async () => {
    await engine.close();
    model.remove();
  });

  async function run(changes: Partial<Engine>, asked: readonly GenerationRequest[]) {
    const busy = bench({ engine: { ...timed(engine, { ms: 0 }), ...foresightOf(engine), ...changes }, stepTokens: 256, maxSequences: 3 });
    let mostHeld = 0;
    busy.submit(...asked);
    while (!busy.loop.isIdle) {
      await busy.loop.step();
      busy.loop.checkIntegrity();
      mostHeld = Math.max(mostHeld, busy.loop.gauges.pagesHeld);
    }
    const tokens = asked.flatMap(({ id, choices }) => Array.from({ length: choices }, (_, choice) => busy.tokensOf(id, choice)));
    return { tokens, mostHeld };
  }

  test('answers are those of pages that stay whole', async () => {
    const whole = await run({ pageIds: engine.pages }, requests);
    const release: Engine['release'] = (page, heads) => {
      if (heads !== null) poison(engine, page, heads);
      engine.release(page, heads);
    };
    const thinned = await run({ release }, requests);
    expect(whole.tokens.map(({ length }) => length)).toEqual([90, 40, 60, 60, 30, 30]);
    expect(thinned.tokens).toEqual(whole.tokens);
  });

  test('a text holds all pages for the heads that retrieve, sinks and a window for those that stream', async () => {
    const [one] = requests;
    const { mostHeld } = await run({}, [{ ...one!, promptIds: prompt(1, 2000), maxTokens: 30 }]);
    const all = Math.ceil(2030 / 64);
    // One sink page, two of window, the span of two, and a step of four pages ahead.
    expect(mostHeld).toBeGreaterThan(all / 2);
    expect(mostHeld).toBeLessThanOrEqual((all + 1 + 2 + 2 + 4) / 2);
  });
}

/** What makes the scheduler plan a step while another runs. */
function foresightOf(engine: Engine): Partial<Engine> {
  return engine.prepare === undefined ? {} : { worksApart: engine.worksApart === true, prepare: (step) => { engine.prepare?.(step); } };
}
