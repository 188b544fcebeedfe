/**
 * What every engine must do, as tests that any engine is put through: against the reference engine and
 * against itself (other chunks, other company, other pages). Knows the Engine interface only. Called by one
 * test file per engine.
 */
import { describe, expect, test } from 'vitest';
import type { Engine } from '../../engine/engine.ts';
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import type { TinyModelOptions } from '../tiny-model.ts';
import { SeededRandom } from '../seeded-random.ts';
import { copyAll, expectClose, expectFar, joined, PAGES, readCuts, useBench, type EngineMaker, type EngineTolerance } from './engine-bench.ts';
import {
  halfPicking, halfPickingThenReusing, headsApart, movedBy, perQueryHead, pickingAll, queryHeadsPicking, sinksAndRecent, sinksMovedUp,
} from './planners.ts';
import { chunkOf, dense, listOf, picking, planOf, randomText, readText, type Planner } from './texts.ts';

/** The families and position schemes, each small enough for the reference. */
const makes: Readonly<Record<string, TinyModelOptions>> = {
  'llama': {},
  'llama, biases, tied head': { biases: true, tiedHead: true, kvHeads: 4 },
  'llama, llama3 positions': { rope: { rope_type: 'llama3', rope_theta: 500_000, factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 128 } },
  'llama, yarn positions': { rope: { rope_type: 'yarn', rope_theta: 10_000, factor: 4, original_max_position_embeddings: 128 } },
  'llama, dynamic positions': { contextLength: 128, rope: { rope_type: 'dynamic', rope_theta: 10_000, factor: 2 } },
  'mistral, window of 100': { family: 'mistral', window: 100 },
  'qwen2, window of 70 from layer 1': { family: 'qwen2', window: 70, maxWindowLayers: 1 },
  'qwen3, one KV head': { family: 'qwen3', kvHeads: 1, headDim: 32 },
};

/** Registers the cases; call it at the top of a test file. */
export function engineCases(name: string, make: EngineMaker, tolerance: EngineTolerance): void {
  describe(`${name}: every make of model`, () => {
    describe.each(Object.entries(makes))('%s', (_, options) => { makeCases(options, make, tolerance); });
  });
  describe(`${name}: lists of pages`, () => { listCases(make, tolerance); });
  describe(`${name}: selected pages`, () => { selectionCases(make, tolerance); });
  describe(`${name}: decode chunks of several tokens`, () => { decodeChunkCases(make, tolerance); });
  describe(`${name}: steps`, () => { stepCases(make, tolerance); });
}

function makeCases(options: TinyModelOptions, make: EngineMaker, tolerance: EngineTolerance): void {
  const bench = useBench(options, make);

  test('all logits of a text are those of the reference', async () => {
    const { engine, reference, text } = bench(280);
    expectClose(await readText(engine, text), await readText(reference, text), tolerance.reference);
  });

  test.each([1, 64, 100])('chunks of %i give what the whole gives', async (chunkTokens) => {
    const { engine, text } = bench(chunkTokens === 1 ? 140 : 280);
    const whole = await readText(engine, text);
    expectClose(await readText(engine, text, { chunkTokens }), whole, tolerance.self);
  });

  test.each([2, 5, 17])('a decode chunk of %i tokens gives what steps of one give, over page borders too', async (chunkTokens) => {
    const { engine, reference, text } = bench(200);
    const read = async (which: Engine, tokens: number) => {
      await readText(which, text, { to: 150 });
      return readText(which, text, { from: 150, chunkTokens: tokens, phase: 'decode' });
    };
    const chunks = await read(engine, chunkTokens);
    expectClose(chunks, await read(engine, 1), tolerance.self);
    expectClose(chunks, await read(reference, chunkTokens), tolerance.reference);
  });

  test('tokens generated after the prompt are those of the reference', async () => {
    const { engine, reference, text } = bench(200);
    const prompt = { ...text, promptTokens: 180 };
    const read = async (which: Engine) => {
      await readText(which, prompt, { to: 180, chunkTokens: 90 });
      return readText(which, prompt, { from: 180, chunkTokens: 1 });
    };
    expectClose(await read(engine), await read(reference), tolerance.reference);
  });
}

function listCases(make: EngineMaker, tolerance: EngineTolerance): void {
  const bench = useBench({ layers: 3 }, make);

  test('sinks and recent pages', async () => {
    const { engine, reference, text } = bench(420);
    const options = { planner: sinksAndRecent, chunkTokens: 64 };
    const logits = await readText(engine, text, options);
    expectClose(logits, await readText(reference, text, options), tolerance.reference);
    expectFar(logits, await readText(engine, text), tolerance);
  });

  test('another list for every KV head and layer', async () => {
    const { engine, reference, text } = bench(420);
    const options = { planner: headsApart, chunkTokens: 50 };
    expectClose(await readText(engine, text, options), await readText(reference, text, options), tolerance.reference);
  });

  test('the order of a list does not matter but for its last page', async () => {
    const { engine, text } = bench(400);
    await readText(engine, text, { to: 330 });
    const read = (fixed: readonly number[]) =>
      readText(engine, text, { from: 330, to: 331, planner: () => planOf(engine, listOf(fixed, 330)) });
    expectClose(await read([3, 1, 4, 0, 2, 5]), await read([0, 1, 2, 3, 4, 5]), tolerance.self);
  });

  test('an empty list leaves the chunk to itself', async () => {
    const { engine, text } = bench(128);
    const fresh = { ...text, sequenceId: 2, tokens: text.tokens.slice(64), pageTable: Int32Array.of(7) };
    const alone = await readText(engine, fresh);
    await readText(engine, text, { to: 64 });
    const cut = await readText(engine, text, { from: 64, planner: () => planOf(engine, listOf([], 0)) });
    expectClose(cut, alone, tolerance.self);
  });

  test('pages that stand later and queries that stand later alike see the same', async () => {
    const { engine, text } = bench(260);
    await readText(engine, text, { to: 200 });
    const plain = await readText(engine, text, { from: 200, to: 220 });
    const later = { ...text, tokens: new Int32Array(400), pageTable: new Int32Array(7).fill(20) };
    later.tokens.set(text.tokens.subarray(200, 220), 328);
    later.pageTable.set(text.pageTable, 2);
    const moved = await readText(engine, later, { from: 328, to: 348, planner: movedBy(128) });
    expectClose(moved, plain, tolerance.self);
  });

  test('pages read at moved positions, in prefill and in decode', async () => {
    const { engine, reference, text } = bench(420);
    const read = async (which: Engine, planner: Planner) => {
      await readText(which, text, { to: 400, chunkTokens: 64, planner });
      return readText(which, text, { from: 400, chunkTokens: 1, planner });
    };
    const moved = await read(engine, sinksMovedUp);
    expectClose(moved, await read(reference, sinksMovedUp), tolerance.reference);
    expectFar(moved, await read(engine, sinksAndRecent), tolerance);
  });
}

function selectionCases(make: EngineMaker, tolerance: EngineTolerance): void {
  const bench = useBench({ layers: 3 }, make);

  test('decode steps pick the pages that the reference picks', async () => {
    const { engine, reference, text } = bench(900);
    const read = async (which: Engine) => {
      await readText(which, text, { to: 860 });
      return readText(which, text, { from: 860, chunkTokens: 1, planner: picking(3) });
    };
    const picked = await read(engine);
    expectClose(picked, await read(reference), tolerance.picked);
    await readText(engine, text, { to: 860 });
    expectFar(picked, await readText(engine, text, { from: 860, chunkTokens: 1 }), tolerance);
  });

  test('prefill chunks pick the pages that the reference picks', async () => {
    const { engine, reference, text } = bench(900);
    const options = { planner: picking(4), chunkTokens: 128 };
    expectClose(await readText(engine, text, options), await readText(reference, text, options), tolerance.picked);
  });

  test('picking every candidate is reading everything', async () => {
    const { engine, text } = bench(700);
    await readText(engine, text, { to: 680 });
    const exact = await readText(engine, text, { from: 680, chunkTokens: 1 });
    await readText(engine, text, { to: 680 });
    const all = await readText(engine, text, { from: 680, chunkTokens: 1, planner: pickingAll });
    expectClose(all, exact, tolerance.self);
  });

  test('query heads pick for themselves, use it again, and do so in company', async () => {
    const { engine, reference, text } = bench(900);
    const other = randomText(2, 700, { vocab: engine.spec.vocab, firstPage: 20 });
    const read = async (which: Engine, planner: Planner) => {
      for (const id of [1, 2]) which.forget(id);
      await readText(which, text, { to: 860 });
      await readText(which, other, { to: 690 });
      const rows: Float32Array[] = [];
      for (let i = 0; i < 7; i++) {
        const chunks = [chunkOf(which, text, { start: 860 + i, end: 861 + i }, { planner }), chunkOf(which, other, { start: 690 + i, end: 691 + i }, { planner })];
        rows.push(...copyAll((await which.run(chunks)).logits));
      }
      return joined(rows);
    };
    const perQueryHead = await read(engine, queryHeadsPicking);
    expectClose(perQueryHead, await read(reference, queryHeadsPicking), tolerance.picked);
    expectFar(perQueryHead, await read(engine, halfPickingThenReusing), tolerance);
  });

  test('query heads that pick every candidate read everything', async () => {
    const { engine, text } = bench(700);
    await readText(engine, text, { to: 680 });
    const exact = await readText(engine, text, { from: 680, chunkTokens: 1 });
    await readText(engine, text, { to: 680 });
    const all = await readText(engine, text, { from: 680, chunkTokens: 1, planner: perQueryHead(pickingAll) });
    expectClose(all, exact, tolerance.self);
  });

  test('heads that pick stand beside heads that do not', async () => {
    const { engine, reference, text } = bench(900);
    const read = async (which: Engine) => {
      await readText(which, text, { to: 896, chunkTokens: 128, planner: halfPicking });
      return readText(which, text, { from: 896, chunkTokens: 1, planner: halfPicking });
    };
    expectClose(await read(engine), await read(reference), tolerance.picked);
  });

  test('a selection is used again, and no longer after it is forgotten', async () => {
    const { engine, reference, text } = bench(900);
    const read = async (which: Engine) => {
      await readText(which, text, { to: 860 });
      await readText(which, text, { from: 860, to: 861, planner: picking(3) });
      const reused = await readText(which, text, { from: 861, to: 880, chunkTokens: 1, planner: picking(3, 2, 'reuse') });
      which.forget(text.sequenceId);
      return { reused, anew: await readText(which, text, { from: 861, to: 880, chunkTokens: 1, planner: picking(3, 2, 'reuse') }) };
    };
    const [got, wanted] = [await read(engine), await read(reference)];
    expectClose(got.reused, wanted.reused, tolerance.picked);
    expectClose(got.anew, wanted.anew, tolerance.picked);
    expectFar(wanted.reused, wanted.anew, tolerance);
  });

  test('a selection of another size is made anew', async () => {
    const { engine, text } = bench(900);
    const read = async (first: Planner) => {
      engine.forget(text.sequenceId);
      await readText(engine, text, { to: 860 });
      await readText(engine, text, { from: 860, to: 861, planner: first });
      return readText(engine, text, { from: 860, to: 861, planner: picking(3, 2, 'reuse') });
    };
    expectClose(await read(picking(5)), await read(dense), tolerance.self);
  });
}

function decodeChunkCases(make: EngineMaker, tolerance: EngineTolerance): void {
  const bench = useBench({ layers: 3 }, make);

  test.each<[string, Planner]>([
    ['sinks and recent pages', sinksAndRecent],
    ['another list for every KV head', headsApart],
    ['sinks at moved positions', sinksMovedUp],
  ])('read their lists as single steps do: %s', async (_, planner) => {
    const { engine, reference, text } = bench(449);
    const read = async (which: Engine, chunkTokens: number) => {
      await readText(which, text, { to: 385, chunkTokens: 64, planner });
      return readText(which, text, { from: 385, chunkTokens, planner, phase: 'decode' });
    };
    const chunks = await read(engine, 16);
    expectClose(chunks, await read(engine, 1), tolerance.self);
    expectClose(chunks, await read(reference, 16), tolerance.reference);
  });

  test('pick pages by their first token, and the next steps use them again', async () => {
    const { engine, text } = bench(900);
    const read = async (cuts: readonly number[]) => {
      engine.forget(text.sequenceId);
      await readText(engine, text, { to: 860 });
      return joined(await readCuts(engine, text, cuts, halfPickingThenReusing));
    };
    const single = Array.from({ length: 21 }, (_, i) => 860 + i);
    expectClose(await read([860, 865, 866, 870, 875, 880]), await read(single), tolerance.self);
  });

  test('pick pages as the reference does', async () => {
    const { engine, reference, text } = bench(900);
    const read = async (which: Engine) => {
      await readText(which, text, { to: 860 });
      return readText(which, text, { from: 860, chunkTokens: 10, phase: 'decode', planner: halfPicking });
    };
    expectClose(await read(engine), await read(reference), tolerance.picked);
  });

  test('truncated texts go on as if the rest had never been computed', async () => {
    const { engine, text } = bench(960);
    const wrong = { ...text, tokens: Int32Array.from(text.tokens, (token, i) => (i < 885 ? token : (token + 1) % engine.spec.vocab)) };
    const read = async (rejected: boolean) => {
      engine.forget(text.sequenceId);
      await readText(engine, text, { to: 880 });
      await readCuts(engine, text, [880, 881], halfPickingThenReusing);
      if (rejected) {
        await readCuts(engine, wrong, [881, 884, 897], halfPickingThenReusing);
        engine.truncate(text, 885);
      } else {
        await readCuts(engine, text, [881, 884, 885], halfPickingThenReusing);
      }
      const next = await readCuts(engine, text, [885, 887, 896], halfPickingThenReusing);
      await readText(engine, text, { from: 896, to: 959 });
      return joined([...next, await readText(engine, text, { from: 959, planner: picking(6) })]);
    };
    expectClose(await read(true), await read(false), tolerance.self);
  });

  test('a truncated text forgets the pages that it picked behind its end', async () => {
    const { engine, text } = bench(900);
    const wrong = { ...text, tokens: text.tokens.toReversed() };
    const read = async (rejected: boolean) => {
      engine.forget(text.sequenceId);
      await readText(engine, text, { to: 862 });
      await readCuts(engine, text, [862, 863], halfPicking);
      if (rejected) {
        await readCuts(engine, wrong, [863, 866, 868], halfPicking);
        engine.truncate(text, 863);
      }
      return joined(await readCuts(engine, text, [863, 866], halfPickingThenReusing));
    };
    expectClose(await read(true), await read(false), tolerance.self);
  });
}

function stepCases(make: EngineMaker, tolerance: EngineTolerance): void {
  const bench = useBench({ layers: 2 }, make);

  test('company changes nothing: prefill and decode, dense and picking, long and short', async () => {
    const { engine, text } = bench(700);
    const others = [randomText(2, 90, { vocab: engine.spec.vocab, firstPage: 12 }), randomText(3, 640, { vocab: engine.spec.vocab, firstPage: 15 })];
    const chunks = [
      chunkOf(engine, text, { start: 650, end: 651 }, { planner: picking(2) }),
      chunkOf(engine, others[0]!, { start: 20, end: 90 }),
      chunkOf(engine, others[1]!, { start: 600, end: 601 }, { planner: picking(2) }),
      chunkOf(engine, { ...others[0]!, sequenceId: 4, pageTable: Int32Array.of(30) }, { start: 0, end: 1 }, { logits: 'last' }),
    ];
    const prepare = async () => {
      await readText(engine, text, { to: 650 });
      await readText(engine, others[0]!, { to: 20 });
      await readText(engine, others[1]!, { to: 600 });
    };
    await prepare();
    const together = copyAll((await engine.run(chunks)).logits);
    await prepare();
    for (const [i, chunk] of chunks.entries()) expectClose(together[i]!, (await engine.run([chunk])).logits[0]!, tolerance.self);
  });

  test('chunks of one sequence in one step see each other', async () => {
    const { engine, text } = bench(200);
    const whole = await readText(engine, text);
    const cuts = [[0, 70], [70, 71], [71, 72], [72, 200]] as const;
    const chunks = cuts.map(([start, end]) => chunkOf(engine, text, { start, end }));
    expectClose(joined(copyAll((await engine.run(chunks)).logits)), whole, tolerance.self);
  });

  test('logits come in the rows that were asked for', async () => {
    const { engine, text } = bench(100);
    const { vocab } = engine.spec;
    const all = await readText(engine, text);
    const ask = async (logits: 'none' | 'last') => (await engine.run([chunkOf(engine, text, { start: 0, end: 100 }, { logits })])).logits;
    expect(await ask('none')).toEqual([null]);
    const last = (await ask('last'))[0]!;
    expect(last.length).toBe(vocab);
    expectClose(last, all.slice(-vocab), tolerance.self);
  });

  test('which pages a text lies on changes nothing', async () => {
    const { engine, text } = bench(600);
    const options = { planner: picking(3), chunkTokens: 128 };
    const ordered = await readText(engine, text, options);
    const scattered = { ...text, sequenceId: 2, pageTable: Int32Array.from(new SeededRandom(5).shuffled(Array(PAGES).keys())).slice(0, 10) };
    expectClose(await readText(engine, scattered, options), ordered, tolerance.self);
  });

  test('pages that another text has used give what fresh pages give', async () => {
    const { engine, text } = bench(600);
    const options = { planner: picking(3), chunkTokens: 128 };
    const fresh = await readText(engine, text, options);
    await readText(engine, randomText(2, PAGES * PAGE_TOKENS, { vocab: engine.spec.vocab }), { chunkTokens: 256, planner: sinksAndRecent });
    engine.forget(2);
    expectClose(await readText(engine, text, options), fresh, tolerance.self);
  });

  test('the pages read are counted', async () => {
    const { engine, text } = bench(600);
    await readText(engine, text, { to: 520 });
    const { layers, kvHeads } = engine.spec;
    const { pagesRead, pagesScored } = await engine.run([chunkOf(engine, text, { start: 520, end: 521 }, { planner: picking(3) })]);
    expect(pagesRead).toBe((1 + 3 + 2) * layers * kvHeads);
    expect(pagesScored).toBe(6 * layers * kvHeads);
  });

  test('the engine describes the model', () => {
    const { engine, reference } = bench(1);
    expect(engine.pages).toBe(PAGES);
    const { layers, kvHeads, vocab, contextLength, slidingWindow, headOrder } = engine.spec;
    expect(reference.spec).toMatchObject({ layers, kvHeads, vocab, contextLength, slidingWindow, headOrder });
    expect(engine.spec.kvBytesPerToken).toBeGreaterThan(0);
  });
}
