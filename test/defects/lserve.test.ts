// Defects of LServe's released code (mit-han-lab/omniserve at 02b2925), each beside our rule: where it fails, ours holds.
import { afterAll, describe, expect, test } from 'vitest';
import { describeHeads } from '../../calibrate/head-file.ts';
import { Weights } from '../../engine/model/weights.ts';
import { createOnnxEngine, type OnnxEngine } from '../../engine/onnx/onnx-engine.ts';
import { MEMORY_NAMES, LOGICAL_PAGES } from '../../engine/onnx/graph-interface.ts';
import { KvMemory } from '../../engine/onnx/kv-memory.ts';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS, type AttentionSettings, type HeadGeometry, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import { chunkOf, randomText, readText, relativeError, type Planner, type Text } from '../engine/texts.ts';
import { SeededRandom } from '../seeded-random.ts';
import { writeTinyModel } from '../tiny-model.ts';

const settings: AttentionSettings = {
  attention: 'lserve', tokenBudget: 320, sinkTokens: 64, localTokens: 128, streamingHeads: 0,
  selectionInterval: 4, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};

describe('statistics of a page that decode begins', () => {
  const headDim = 8;
  const random = new SeededRandom(1);
  const keysOf = (size: number): Float32Array => Float32Array.from({ length: PAGE_TOKENS * headDim }, () => size * random.normal());
  /** What the page held for another sequence before, and the keys that three pages hold now: the second is like the query. */
  const stale = keysOf(40);
  const pages = [keysOf(1), keysOf(1), keysOf(1)];
  const query = Float32Array.from({ length: headDim }, () => random.normal());
  for (let i = 0; i < PAGE_TOKENS * headDim; i++) pages[1]![i]! += 4 * query[i % headDim]!;

  /** Bounds of q.k by page, from statistics [page][logical page][max | min]. */
  const scores = (statistics: (page: number, logical: number) => { max: Float32Array; min: Float32Array }): number[] =>
    pages.map((_, page) => Math.max(...Array.from({ length: LOGICAL_PAGES }, (_, logical) => {
      const { max, min } = statistics(page, logical);
      return query.reduce((sum, q, c) => sum + Math.max(q * max[c]!, q * min[c]!), 0);
    })));
  const best = (values: readonly number[]): number => values.indexOf(Math.max(...values));

  /** Every key merged into what is there, the first one too. */
  const mergedFromTheStart = (): number[] => scores((page, logical) => {
    const slice = (keys: Float32Array): Float32Array => keys.subarray(logical * LOGICAL_PAGE_TOKENS * headDim, (logical + 1) * LOGICAL_PAGE_TOKENS * headDim);
    const seen = [...(page === 2 ? slice(stale) : []), ...slice(pages[page]!)];
    const channel = (c: number): number[] => seen.filter((_, i) => i % headDim === c);
    return {
      max: Float32Array.from({ length: headDim }, (_, c) => Math.max(...channel(c))),
      min: Float32Array.from({ length: headDim }, (_, c) => Math.min(...channel(c))),
    };
  });

  const ours = (before: Float32Array | null): number[] => {
    const memory = new KvMemory({ layers: 1, kvHeads: 1, headDim, precision: 'fp32', pages: 3, ids: 3 });
    const write = (page: number, keys: Float32Array): void => {
      for (let slot = 0; slot < PAGE_TOKENS; slot++) memory.write(0, { keys, values: keys, first: slot, count: 1 }, { start: slot, pageTable: Int32Array.of(page) });
    };
    if (before !== null) write(2, before);
    pages.forEach((keys, page) => { write(page, keys); });
    const statistics = memory.tensors[MEMORY_NAMES.statistics]!.data as Float32Array;
    return scores((page, logical) => {
      const at = (memory.rowOf(0, 0, page) * LOGICAL_PAGES + logical) * 2 * headDim;
      return { max: statistics.subarray(at, at + headDim), min: statistics.subarray(at + headDim, at + 2 * headDim) };
    });
  };

  test('released: never set, so a recycled page scores by the keys of its last owner and wins', () => {
    expect(best(mergedFromTheStart())).toBe(2);
  });

  test('ours: the first key is both bounds, so a recycled page scores as a fresh one', () => {
    expect(ours(stale)).toEqual(ours(null));
    expect(best(ours(stale))).toBe(1);
  });
});

describe('lengths of the sequences of a batch', () => {
  const model = writeTinyModel({ layers: 3 });
  const geometry: HeadGeometry = { ...model.spec, headOrder: null };
  const policy = createPageListPolicy(settings, geometry);
  const short = randomText(1, 701, { vocab: model.spec.vocab });
  const long = randomText(2, 1501, { vocab: model.spec.vocab, firstPage: 11 });
  afterAll(() => { model.remove(); });

  /** Every sequence listed as if it were as long as the longest: behind its own pages stand those of a former owner of the row. */
  const listedAsLongest = (pageTable: Int32Array): PagePlan => {
    const row = Int32Array.from(long.pageTable);
    row.set(pageTable);
    return policy.plan(row, long.tokens.length - 1, 1, 'decode').classes[0]!;
  };
  const listedAsItIs = ({ pageTable, tokens }: Text): PagePlan => policy.plan(pageTable, tokens.length - 1, 1, 'decode').classes[0]!;

  test('released: the longest length for all, so a short one reads foreign pages and loses its newest', () => {
    const { fixed, candidates } = listedAsLongest(short.pageTable);
    expect([...fixed, ...candidates].some((page) => !short.pageTable.includes(page))).toBe(true);
    expect([...fixed]).not.toContain(short.pageTable.at(-1));
  });

  test('ours: each its own, so a short one reads its own pages, the newest always', () => {
    const { fixed, candidates } = listedAsItIs(short);
    for (const page of [...fixed, ...candidates]) expect(short.pageTable).toContain(page);
    expect(fixed.at(-1)).toBe(short.pageTable.at(-1));
  });

  test('ours: the engine gives a short one beside a long one what it gives it alone', async () => {
    const engine = await tinyEngine();
    const planner: Planner = (_, { pageTable }, start) => policy.plan(pageTable, start, 1, 'decode');
    const last = (text: Text) => chunkOf(engine, text, { start: text.tokens.length - 1, end: text.tokens.length }, { planner });
    for (const text of [short, long]) await readText(engine, text, { to: text.tokens.length - 1 });
    const alone = Float32Array.from((await engine.run([last(short)])).logits[0]!);
    const together = (await engine.run([last(short), last(long)])).logits[0]!;
    expect(relativeError(together, alone)).toBeLessThan(1e-5);
    await engine.close();
  });

  async function tinyEngine(): Promise<OnnxEngine> {
    const weights = await Weights.open(model.dir, model.spec);
    try {
      return await createOnnxEngine({ spec: model.spec, weights, precision: 'fp32', threads: 1, pages: 40, headOrder: null });
    } finally {
      weights.close();
    }
  }
});

describe('a selection that is used again behind a page border', () => {
  const geometry: HeadGeometry = { layers: 1, kvHeads: 1, slidingWindow: [null], headOrder: null };
  const pageTable = Int32Array.from({ length: 40 }, (_, i) => i);
  const from = 1200;
  const to = 2000;

  /** Positions of the newest page that a step does not read. pages: what it reads, the chunk's own token apart. */
  const hidden = (pages: ReadonlySet<number>, position: number): number[] =>
    Array.from({ length: position % PAGE_TOKENS }, (_, i) => position - 1 - i).filter((seen) => !pages.has(Math.floor(seen / PAGE_TOKENS)));

  /** The whole list, recent page included, is kept until the next token count divisible by the interval. */
  function* wholeListKept(interval: number): Generator<number[]> {
    const policy = createPageListPolicy({ ...settings, selectionInterval: interval }, geometry);
    let kept = new Set<number>();
    for (let position = from; position < to; position++) {
      if (kept.size === 0 || (position + 1) % interval === 0) kept = pagesOf(policy.plan(pageTable, position, 1, 'decode').classes[0]!);
      yield hidden(kept, position);
    }
  }

  function* ours(interval: number): Generator<number[]> {
    const policy = createPageListPolicy({ ...settings, selectionInterval: interval }, geometry);
    let picked = new Set<number>();
    for (let position = from; position < to; position++) {
      const { classes, selection } = policy.plan(pageTable, position, 1, 'decode');
      const { fixed, candidates, pick } = classes[0]!;
      if (selection === 'fresh') picked = new Set(candidates.subarray(0, pick));
      // Behind a border the page that was newest must have become a candidate or be read anyway.
      yield hidden(new Set([...fixed, ...picked]), position);
    }
  }

  const pagesOf = ({ fixed, candidates, pick }: PagePlan): Set<number> => new Set([...fixed, ...candidates.subarray(0, pick)]);

  test.each([4, 16, 64])('released: tokens of a new page are hidden until the next selection (every %i steps)', (interval) => {
    expect([...wholeListKept(interval)].some((tokens) => tokens.length > 0)).toBe(true);
  });

  test.each([1, 3, 4, 16, 64])('ours: recent pages are not part of what is kept, so nothing is hidden (every %i steps)', (interval) => {
    expect([...ours(interval)].filter((tokens) => tokens.length > 0)).toEqual([]);
  });

  test.each([3, 16, 64])('ours: every border selects anew, so the page left behind can be picked at once (every %i steps)', (interval) => {
    const policy = createPageListPolicy({ ...settings, selectionInterval: interval }, geometry);
    for (let border = 1216; border < to; border += PAGE_TOKENS) expect(policy.plan(pageTable, border, 1, 'decode').selection).toBe('fresh');
  });
});

describe('KV heads with the same gate', () => {
  const layers = 4;
  const kvHeads = 4;
  /** As gates come: many at the same end of the scale. */
  const gates = Float64Array.from({ length: layers * kvHeads }, (_, head) => (head % 3 === 0 ? 0.1 : 0.99));

  /** Ties broken by noise that is drawn anew at each start, then cut at the quantile. */
  const noisyStreamingHeads = (share: number, startedWith: number): number[] => {
    const random = new SeededRandom(startedWith);
    const noisy = gates.map((gate) => gate + random.below(1e6) * 1e-12);
    const threshold = [...noisy].sort((a, b) => a - b)[Math.round(share * gates.length)]!;
    return [...noisy.keys()].filter((head) => noisy[head]! < threshold);
  };

  const ours = (share: number): number[] => {
    const { order } = describeHeads({ kvHeads, lengths: [4000], mass: [gates], chosen: null }, { method: '', data: '' });
    const headOrder = Int32Array.from(order, ([layer, head]) => layer * kvHeads + head);
    const policy = createPageListPolicy({ ...settings, streamingHeads: share }, { layers, kvHeads, slidingWindow: Array<null>(layers).fill(null), headOrder });
    const { classOf } = policy.plan(Int32Array.from({ length: 20 }, (_, i) => i), 1000, 1, 'decode');
    return [...classOf.keys()].filter((head) => classOf[head] === 1);
  };

  test('released: other heads stream after every start, so the same request has other answers', () => {
    const starts = [1, 2, 3, 4].map((start) => noisyStreamingHeads(0.75, start).join());
    expect(new Set(starts).size).toBeGreaterThan(1);
  });

  test.each([0.25, 0.5, 0.75, 1])('ours: ties stay in the order of the model, and the share is met exactly (%f)', (share) => {
    expect(ours(share)).toHaveLength(share * layers * kvHeads);
    const ranked = [...gates.keys()].sort((a, b) => gates[a]! - gates[b]! || a - b);
    expect(ours(share)).toEqual(ranked.slice(0, share * layers * kvHeads).sort((a, b) => a - b));
  });
});
