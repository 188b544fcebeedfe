/**
 * What every page list policy promises, whatever its technique. A new policy passes these by one call.
 */
import { describe, expect, test } from 'vitest';
import {
  PAGE_TOKENS, type AttentionPlan, type AttentionSettings, type HeadGeometry, type PageListPolicy, type PagePlan,
} from '../../kvcache/page-lists/page-list.ts';

export const settings: AttentionSettings = {
  attention: 'dense', tokenBudget: 512, sinkTokens: 128, localTokens: 256, streamingHeads: 0,
  selectionInterval: 4, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: true,
};

/** 3 layers of 2 KV heads; the last layer has a window. */
export const geometry: HeadGeometry = {
  layers: 3, kvHeads: 2, slidingWindow: [null, null, 100], headOrder: Int32Array.of(3, 0, 1, 2, 4, 5),
};

/** Page ids unlike their indices, so that the two cannot be mixed up. */
export function table(tokens: number): Int32Array {
  return Int32Array.from({ length: Math.ceil(tokens / PAGE_TOKENS) }, (_, i) => 1000 + 7 * i);
}

const positions = [0, 1, 63, 64, 65, 127, 128, 191, 192, 383, 384, 385, 447, 511, 512, 513, 575, 576, 640, 1000, 1024, 1025, 2048, 4999];
const phases = ['prefill', 'decode'] as const;
const LONGEST = 6000;

export function pageListCases(name: string, create: (changes?: Partial<AttentionSettings>) => PageListPolicy): void {
  describe(`page lists: ${name}`, () => {
    const policy = create();
    const pages = table(LONGEST);
    const plans = positions.flatMap((start) => phases.map((phase) => ({ start, phase, plan: policy.plan(pages, start, 1, phase) })));
    const lists = plans.flatMap(({ start, plan }) => plan.classes.map((list) => ({ start, list })));
    const indexOf = (page: number): number => pages.indexOf(page);

    test('every head has a class', () => {
      for (const { plan } of plans) {
        expect(plan.classOf).toHaveLength(geometry.layers * geometry.kvHeads);
        expect(Math.max(...plan.classOf)).toBeLessThan(plan.classes.length);
      }
    });

    test('a list names pages before the chunk only, each once, oldest first', () => {
      for (const { start, list } of lists) {
        const all = [...list.fixed, ...list.candidates].map(indexOf);
        expect(new Set(all).size).toBe(all.length);
        for (const index of all) expect(index * PAGE_TOKENS).toBeLessThan(Math.max(start, 1));
        for (const part of [list.fixed, list.candidates]) expect([...part].map(indexOf)).toEqual([...part].map(indexOf).sort((a, b) => a - b));
        expect(all).not.toContain(-1);
      }
    });

    test('the last fixed page is the newest, and the candidates are full', () => {
      for (const { start, list } of lists) {
        if (list.fixed.length > 0) expect(indexOf(list.fixed.at(-1)!)).toBe(Math.ceil(start / PAGE_TOKENS) - 1);
        for (const page of list.candidates) expect((indexOf(page) + 1) * PAGE_TOKENS).toBeLessThanOrEqual(start);
      }
    });

    test('picks no more than there is, and nothing when nothing is to be chosen', () => {
      for (const { list } of lists) {
        expect(list.pick).toBeGreaterThanOrEqual(0);
        expect(list.pick).toBeLessThanOrEqual(list.candidates.length);
        if (list.pick === 0) expect(list.candidates).toHaveLength(0);
      }
    });

    test('counts the valid tokens of its pages', () => {
      for (const { start, list } of lists) {
        const fixed = [...list.fixed].reduce((sum, page) => sum + Math.min(PAGE_TOKENS, start - indexOf(page) * PAGE_TOKENS), 0);
        expect(list.tokens).toBe(fixed + list.pick * PAGE_TOKENS);
      }
    });

    test('never lists a page that it released', () => {
      for (const { start } of plans) {
        const held = table(LONGEST);
        const { from, to } = policy.releasablePages(start);
        held.fill(-1, from, Math.max(from, to));
        for (let later = start; later < start + 300; later += 13) {
          for (const phase of phases) {
            for (const list of policy.plan(held, later, 1, phase).classes) expect([...list.fixed, ...list.candidates]).not.toContain(-1);
          }
        }
      }
    });

    test('never lists a page for a head that has passed it', () => {
      for (const { start } of plans) {
        const { from, to } = policy.passedPages(start);
        const passed = new Set(pages.subarray(from, Math.max(from, to)));
        if (to > from) expect(policy.passingHeads.length).toBeGreaterThan(0);
        for (let later = start; later < start + 300; later += 13) {
          for (const phase of phases) {
            const plan = policy.plan(pages, later, 1, phase);
            const read = [...policy.passingHeads].map((head) => plan.classes[plan.classOf[head]!]!).flatMap(({ fixed, candidates }) => [...fixed, ...candidates]);
            expect(read.filter((page) => passed.has(page))).toEqual([]);
          }
        }
      }
    });

    test.each(['releasablePages', 'passedPages'] as const)('names ever more %s, from the same page on', (name) => {
      let last = policy[name](0);
      for (let start = 0; start < LONGEST; start += 50) {
        const range = policy[name](start);
        expect(range.from).toBe(last.from);
        expect(Math.max(range.from, range.to)).toBeGreaterThanOrEqual(Math.max(last.from, last.to));
        last = range;
      }
    });

    test('is dense as far as it says it is exact', () => {
      for (let length = 1; length < 2000; length++) {
        if (!policy.isExact(length)) continue;
        for (const phase of phases) {
          const plan = policy.plan(pages, length - 1, 1, phase);
          expect(plan.classes[plan.classOf[0]!]!.fixed).toEqual(pages.subarray(0, Math.ceil((length - 1) / PAGE_TOKENS)));
          expect(plan.classes[plan.classOf[3]!]!.pick).toBe(0);
        }
      }
    });

    test('gives the dense lists when budget and window are as long as the context', () => {
      const wide = create({ tokenBudget: 6016, localTokens: 6016 });
      for (const start of positions) {
        for (const phase of phases) {
          const plan = wide.plan(pages, start, 1, phase);
          for (let head = 0; head < 4; head++) {
            expect(plan.classes[plan.classOf[head]!]!).toMatchObject({ fixed: pages.subarray(0, Math.ceil(start / PAGE_TOKENS)), pick: 0, positionDelta: null });
          }
        }
      }
      expect(wide.isExact(6000)).toBe(true);
    });

    test('shows every prompt token the same pages however the prompt is cut', () => {
      const length = 1500;
      const whole = seenInPrefill(policy, length, () => Infinity);
      for (const size of [64, 128, 256, 640]) {
        expect(seenInPrefill(policy, length, () => size)).toEqual(whole);
      }
      let turn = 0;
      expect(seenInPrefill(policy, length, () => [64, 320, 128][turn++ % 3]!)).toEqual(whole);
    });

    test('shows every token of a decode chunk what a step of its own would show it', () => {
      for (let start = 0; start < 1500; start += 7) {
        const end = Math.min(start + policy.maxDecodeTokens(start), start + 150);
        expect(end).toBeGreaterThan(start);
        const first = describeDecoded(policy.plan(pages, start, end - start, 'decode'), { pages, start, position: start });
        for (let position = start + 1; position < end; position++) {
          const plan = policy.plan(pages, position, 1, 'decode');
          expect(describeDecoded(plan, { pages, start: position, position: start })).toBe(first);
          if (plan.classes.some(({ pick }, index) => pick > 0 && plan.classOf.includes(index))) expect(plan.selection).toBe('reuse');
        }
      }
    });

    test('shows a decoded token what prefill would show it, if it says so', () => {
      const lists = (start: number, phase: 'prefill' | 'decode') => policy.plan(pages, start, 1, phase).classes.map(describeList);
      const isSame = positions.every((start) => JSON.stringify(lists(start, 'prefill')) === JSON.stringify(lists(start, 'decode')));
      if (policy.sameInDecode) expect(isSame).toBe(true);
    });
  });
}

/**
 * For every position and class what its query sees: pages from the list and, up to its own, from the chunk;
 * and for lists with a selection the queries that select together. Chunks of at most `size()` tokens, cut as
 * the policy demands.
 */
function seenInPrefill(policy: PageListPolicy, length: number, size: () => number): string[] {
  const pages = table(length);
  const seen: string[] = [];
  for (let start = 0; start < length;) {
    const free = Math.min(size(), length - start);
    const aligned = start + free < length ? free - ((start + free) % policy.spanTokens) : free;
    const tokens = Math.min(Math.max(aligned, policy.spanTokens), length - start, policy.maxChunkTokens(start));
    const plan = policy.plan(pages, start, tokens, 'prefill');
    for (let position = start; position < start + tokens; position++) seen.push(describeSeen(plan, { pages, start, tokens, position }));
    start += tokens;
  }
  return seen;
}

function describeSeen(plan: AttentionPlan, at: { pages: Int32Array; start: number; tokens: number; position: number }): string {
  const window = geometry.slidingWindow[2]!;
  return plan.classes.map((list, index) => {
    const own = at.pages.subarray(Math.floor(at.start / PAGE_TOKENS), Math.floor(at.position / PAGE_TOKENS) + 1);
    const isWindow = index === plan.classOf[5];
    // A window is exact per token, in the engine: its list need only reach far enough.
    const oldest = isWindow ? Math.floor(Math.max(0, at.position - window + 1) / PAGE_TOKENS) : 0;
    const visible = new Set([...list.fixed, ...own].filter((page) => at.pages.indexOf(page) >= oldest));
    const selection = list.pick === 0 ? '' : `${list.pick} of ${[...list.candidates].join()} by queries ${at.start}+${at.tokens}`;
    return `${[...visible].join()} ${selection}`;
  }).join(' | ');
}

/** What a decode step reads of the tokens before `position`, but for the pages that a window's mask hides. */
function describeDecoded(plan: AttentionPlan, { pages, start, position }: { pages: Int32Array; start: number; position: number }): string {
  const lists = plan.classes.filter((_, index) => index !== plan.classOf[5] && plan.classOf.includes(index));
  return JSON.stringify(lists.map(({ fixed, candidates, pick, positionDelta, tokens }) => {
    const entries = [...fixed].map((page, i) => [pages.indexOf(page), positionDelta?.[i] ?? 0] as const);
    const before = entries.filter(([index]) => index * PAGE_TOKENS < position);
    const numNew = start - position;
    return [before, [...candidates], pick, tokens - numNew];
  }));
}

function describeList({ fixed, candidates, pick, positionDelta }: PagePlan): unknown[] {
  return [[...fixed], [...candidates], pick, positionDelta === null ? null : [...positionDelta]];
}
