// Streaming heads with rows of their own on the CPU engine: the tokens are those of pages that stay whole, also when
// rows are poisoned as they are given back, and the memory that a text holds falls.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../engine/engine.ts';
import type { OnnxPrecision } from '../../../engine/onnx/graph-interface.ts';
import { createOnnxEngine, type OnnxEngine } from '../../../engine/onnx/onnx-engine.ts';
import { Weights } from '../../../engine/model/weights.ts';
import type { GenerationRequest } from '../../../scheduler/messages.ts';
import { bench, dense, drafting, request, timed } from '../../scheduler/build.ts';
import { writeTinyModel } from '../../tiny-model.ts';

const model = writeTinyModel({ layers: 3, vocab: 300 });
afterAll(() => { model.remove(); });
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

describe.each(['fp32', 'int8'] as const)('pages that streaming heads have passed, in %s', (precision: OnnxPrecision) => {
  let onnx: OnnxEngine;
  beforeAll(async () => {
    const weights = await Weights.open(model.dir, model.spec);
    onnx = await createOnnxEngine({ spec: model.spec, weights, precision, threads: 1, pages: 40, headOrder: Int32Array.of(5, 0, 2, 3, 1, 4) });
    weights.close();
  });
  afterAll(() => onnx.close());

  async function run(engine: Engine, asked: readonly GenerationRequest[]) {
    const busy = bench({ engine: timed(engine, { ms: 0 }), stepTokens: 256, maxSequences: 3 });
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

  /** What is given back is written over with large keys at once, as by another text. */
  function poisoning(engine: OnnxEngine): Engine {
    const { kvHeads } = engine.spec;
    return {
      ...timed(engine, { ms: 0 }),
      release: (page, heads) => {
        for (const head of heads ?? []) engine.memory.keysOf(Math.floor(head / kvHeads), head % kvHeads, page).fill(120);
        engine.release(page, heads);
      },
    };
  }

  test('answers are those of pages that stay whole', async () => {
    const whole = await run({ ...timed(onnx, { ms: 0 }), pageIds: onnx.pages }, requests);
    const thinned = await run(poisoning(onnx), requests);
    expect(whole.tokens.map(({ length }) => length)).toEqual([90, 40, 60, 60, 30, 30]);
    expect(thinned.tokens).toEqual(whole.tokens);
  });

  test('a text holds all pages for the heads that retrieve, sinks and a window for those that stream', async () => {
    const [one] = requests;
    const { mostHeld } = await run(onnx, [{ ...one!, promptIds: prompt(1, 2000), maxTokens: 30 }]);
    const all = Math.ceil(2030 / 64);
    // One sink page, two of window, the span of two, and a step of four pages ahead.
    expect(mostHeld).toBeGreaterThan(all / 2);
    expect(mostHeld).toBeLessThanOrEqual((all + 1 + 2 + 2 + 4) / 2);
  });
});
