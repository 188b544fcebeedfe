/**
 * Page tables that an engine keeps, and steps that it is given before their tokens are known: neither changes a bit of what
 * lists that are copies and steps that come unprepared give. Called by cuda-engine.test.ts, on a device and on the fake.
 */
import { afterAll, expect, test } from 'vitest';
import type { CudaEngine } from '../../../engine/cuda/cuda-engine.ts';
import type { Chunk } from '../../../engine/engine.ts';
import { createPageListPolicy } from '../../../kvcache/page-lists/create.ts';
import type { PagePlan } from '../../../kvcache/page-lists/page-list.ts';
import { randomText, readText, type Text } from '../texts.ts';
import { writeTinyModel, type TinyModel } from '../../tiny-model.ts';

const STEPS = 40;
/** Where decode begins: two texts have lists of more pages than are listed one by one, and all reach a page border. */
const STARTS = [1070, 900, 620];

interface Way {
  /** Lists that are stretches of page tables come as such, not as copies. */
  readonly asViews: boolean;
  readonly prepares: boolean;
}

export function preparedCases(open: (model: TinyModel) => Promise<CudaEngine>): void {
  const model = writeTinyModel({ family: 'qwen2', window: 700, maxWindowLayers: 1 });
  afterAll(() => { model.remove(); });

  test.each([1, 4])('kept page tables and prepared steps change no bit, a selection for %i steps', async (selectionInterval) => {
    const read = async (way: Way): Promise<number[][]> => {
      const engine = await open(model);
      const rows = await decode(engine, way, selectionInterval);
      await engine.close();
      return rows;
    };
    const plain = await read({ asViews: false, prepares: false });
    expect(await read({ asViews: true, prepares: false })).toEqual(plain);
    expect(await read({ asViews: true, prepares: true })).toEqual(plain);
  });

  test('picks that were prepared and not made are none', async () => {
    const engine = await open(model);
    const text = randomText(1, 1000, { vocab: engine.spec.vocab });
    await readText(engine, text, { to: 997, chunkTokens: 128 });
    const run = async (start: number, selection: 'fresh' | 'reuse') => {
      const chunk = chunkAt(engine, text, start, { asViews: true, interval: 1 });
      return [...(await engine.run([{ ...chunk, tokens: text.tokens.subarray(start, start + 1), attention: { ...chunk.attention, selection } }])).logits[0]!];
    };
    await run(997, 'fresh');
    const wanted = await run(998, 'reuse');
    engine.truncate(text, 998);
    engine.prepare([chunkAt(engine, text, 998, { asViews: true, interval: 1 })]);
    expect(await run(998, 'reuse')).toEqual(wanted);
    await engine.close();
  });

  test('a token that is not in the vocabulary stops a prepared step', async () => {
    const engine = await open(model);
    const text = randomText(1, 100, { vocab: engine.spec.vocab });
    await readText(engine, text, { to: 99 });
    const step = [chunkAt(engine, text, 99, { asViews: true, interval: 1 })];
    engine.prepare(step);
    step[0]!.tokens[0] = engine.spec.vocab;
    await expect(engine.run(step)).rejects.toThrow(RangeError);
    step[0]!.tokens[0] = 0;
    await engine.run(step);
    await engine.close();
  });
}

/** Rows of logits of each step. In some of them a text stays away, though the step was prepared with it. */
async function decode(engine: CudaEngine, { asViews, prepares }: Way, interval: number): Promise<number[][]> {
  const texts = STARTS.map((start, i) => randomText(i + 1, start + STEPS + 1, { vocab: engine.spec.vocab, firstPage: 20 * i }));
  for (const [i, text] of texts.entries()) await readText(engine, text, { to: STARTS[i]!, chunkTokens: 128 });
  const at = [...STARTS];
  const rows: number[][] = [];
  let prepared: readonly Chunk[] = [];
  for (let step = 0; step < STEPS; step++) {
    const isWhole = step % 7 !== 3;
    const present = texts.filter((_, i) => isWhole || i !== step % 3);
    const chunks = isWhole && prepared.length > 0 ? prepared : present.map((text) => chunkAt(engine, text, at[text.sequenceId - 1]!, { asViews, interval }));
    chunks.forEach(({ tokens, start }, i) => { tokens[0] = present[i]!.tokens[start]!; });
    const running = engine.run(chunks);
    for (const { sequenceId } of present) at[sequenceId - 1]!++;
    if (prepares) {
      prepared = texts.map((text) => chunkAt(engine, text, at[text.sequenceId - 1]!, { asViews, interval }));
      engine.prepare(prepared);
    }
    rows.push((await running).logits.flatMap((row) => [...row!]));
  }
  return rows;
}

/** Of a token that is not known yet. */
function chunkAt(engine: CudaEngine, { sequenceId, pageTable, promptTokens }: Text, start: number, { asViews, interval }: { asViews: boolean; interval: number }): Chunk {
  const policy = createPageListPolicy({
    attention: 'lserve', tokenBudget: 320, sinkTokens: 64, localTokens: 128, streamingHeads: 0,
    selectionInterval: interval, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
  }, engine.spec);
  const plan = policy.plan(pageTable, start, 1, 'decode');
  const copied = (list: PagePlan): PagePlan => ({ ...list, fixed: list.fixed.slice(), candidates: list.candidates.slice() });
  const attention = asViews ? plan : { ...plan, classes: plan.classes.map(copied) };
  return { phase: 'decode', sequenceId, tokens: new Int32Array(1), start, pageTable, attention, promptTokens, logits: 'last' };
}
