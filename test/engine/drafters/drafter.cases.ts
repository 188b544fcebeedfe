/**
 * What every drafter must do, whatever it drafts from: bounds, the sequence's own pages left as they were, no dependence
 * on company, pages given back. A new drafter passes these by one call. Knows the Drafter interface only.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DraftMemory } from '../../../engine/drafters/create.ts';
import type { Draft, Drafter, DraftRequest } from '../../../engine/drafters/drafter.ts';
import { newSamplerScratch, Sampler, type SamplerSettings } from '../../../engine/sampler.ts';
import { KvCache } from '../../../kvcache/kv-cache.ts';
import { makeReference } from '../engine-bench.ts';
import { chunkOf, pagesFor, randomText, readText, type Text } from '../texts.ts';
import { writeTinyModel, type TinyModel } from '../../tiny-model.ts';

export interface DrafterBench {
  /** Its pages 20.. are the sequences', those before are `kv`'s. */
  readonly target: DraftMemory;
  /** Another model with the same vocabulary. */
  readonly draftModel: DraftMemory;
}

export interface DrafterCasesOptions {
  readonly create: (bench: DrafterBench) => Drafter;
  /** Whether every draft of a long text has tokens. */
  readonly alwaysDrafts: boolean;
  /** Whose pages it takes for texts of its own; null for a drafter that has none. */
  readonly takesFrom: keyof DrafterBench | null;
  /** Whether it has to read a text of its own before it drafts. */
  readonly mustRead: boolean;
}

const POOL_PAGES = 24;
const TEXT_TOKENS = 400;
const VOCAB = 40;

export function drafterCases(name: string, { create, alwaysDrafts, takesFrom, mustRead }: DrafterCasesOptions): void {
  describe(`drafter: ${name}`, () => {
    let models: TinyModel[];
    let bench: DrafterBench;
    let drafter: Drafter;
    beforeAll(async () => {
      models = [writeTinyModel({ vocab: VOCAB }), writeTinyModel({ vocab: VOCAB, layers: 1, seed: 2 })];
      const [engine, draftEngine] = await Promise.all(models.map((model) => makeReference(model, POOL_PAGES + 24)));
      bench = { target: { engine: engine!, kv: new KvCache(POOL_PAGES) }, draftModel: { engine: draftEngine!, kv: new KvCache(POOL_PAGES) } };
      drafter = create(bench);
    });
    afterAll(() => { for (const model of models) model.remove(); });

    /** A text that repeats itself, all but its last token in KV memory. */
    const written = async (id: number): Promise<Text> => {
      const text = randomText(id, TEXT_TOKENS, { vocab: VOCAB, firstPage: POOL_PAGES + 8 * id });
      text.tokens.copyWithin(TEXT_TOKENS - 30, 100, 130);
      await readText(bench.target.engine, { ...text, promptTokens: TEXT_TOKENS - 3 }, { to: TEXT_TOKENS - 1, chunkTokens: 64 });
      return { ...text, promptTokens: TEXT_TOKENS - 3, pageTable: Int32Array.from({ length: pagesFor(TEXT_TOKENS + 64) }, (_, i) => POOL_PAGES + 8 * id + i) };
    };

    const ask = (text: Text, changes: Partial<DraftRequest> = {}, temperature = 0): DraftRequest => ({
      sequenceId: text.sequenceId, text: text.tokens, finalTokens: text.tokens.length, promptTokens: text.promptTokens, pageTable: text.pageTable,
      maxTokens: 5, draftPrompt: text.tokens.slice(90, 200), patience: null, sampler: samplerOf(temperature), ...changes,
    });

    /** Drafts once it has read what it reads. */
    const ready = async (...requests: DraftRequest[]): Promise<readonly Draft[]> => {
      const ask = requests.map((request) => ({ ...request, sampler: request.sampler.fork() }));
      await drafter.draft(ask);
      return drafter.draft(requests);
    };

    test.each([0, 1])('proposes at most as many tokens as are wanted, of the vocabulary, each with its distribution; temperature %i', async (temperature) => {
      const text = await written(0);
      for (const maxTokens of [1, 2, 3, 7, 20]) {
        const [draft] = await ready(ask(text, { maxTokens }, temperature));
        const { tokens, distributions, classes, reason } = draft!;
        expect(tokens.length).toBeLessThanOrEqual(maxTokens);
        if (alwaysDrafts) expect(tokens.length).toBeGreaterThan(0);
        expect(distributions).toHaveLength(tokens.length);
        expect(classes).toHaveLength(tokens.length);
        for (const sureness of classes) expect(drafter.firstAcceptances[sureness]).toBeGreaterThan(0);
        expect(reason === null).toBe(tokens.length > 0);
        tokens.forEach((token, i) => {
          expect(token).toBeGreaterThanOrEqual(0);
          expect(token).toBeLessThan(VOCAB);
          const distribution = distributions[i] ?? null;
          if (distribution === null) return;
          expect(distribution[token]).toBeGreaterThan(0);
          expect(distribution.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9);
        });
      }
      drafter.forget(0);
    });

    test('leaves the sequence as it was: what the target computes next is what it would have computed', async () => {
      const text = await written(0);
      const next = async (): Promise<Float32Array> => {
        const { logits } = await bench.target.engine.run([chunkOf(bench.target.engine, text, { start: TEXT_TOKENS - 1, end: TEXT_TOKENS })]);
        return Float32Array.from(logits[0]!);
      };
      const before = await next();
      bench.target.engine.truncate(text, TEXT_TOKENS - 1);
      await ready(ask(text, { maxTokens: 9 }));
      expect(await next()).toEqual(before);
      drafter.forget(0);
    });

    test('says what it has to read, until it has read it; and a draft that it foresees is the one it makes', async () => {
      const text = await written(0);
      const request = ask(text);
      const [unread, foreseen] = [drafter.unread(request), drafter.foresee(request)];
      expect(drafter.unread(request)).toBe(unread);
      const [first] = await drafter.draft([request]);
      expect(unread > 0).toBe(mustRead);
      if (mustRead) expect(first!.readTokens).toBe(unread);
      expect(drafter.unread(ask(text))).toBeLessThan(8);
      if (foreseen !== null) expect(foreseen).toEqual(first);
      drafter.forget(0);
    });

    test('stops where the draft is not worth going on, if its tokens cost passes', async () => {
      const text = await written(0);
      const [whole] = await ready(ask(text, { maxTokens: 12 }));
      const patience = { acceptances: drafter.firstAcceptances.map(() => 0.6), least: 0.5 };
      const [short] = await ready(ask(text, { maxTokens: 12, patience }));
      expect(short!.tokens).toEqual(whole!.tokens.subarray(0, short!.tokens.length));
      if (drafter.foresee(ask(text)) !== null) expect(short!.tokens).toHaveLength(whole!.tokens.length);
      else expect([short!.tokens.length >= 2, short!.tokens.length < 10]).toEqual([true, true]); // .6 goes on, .36 does not, but a pass that verifies n-grams may give several.
      drafter.forget(0);
    });

    test('drafts the same in company', async () => {
      const texts = [await written(0), await written(1)];
      const together = await ready(...texts.map((text) => ask(text)));
      for (const { sequenceId } of texts) drafter.forget(sequenceId);
      for (const [i, text] of texts.entries()) {
        const [alone] = await ready(ask(text));
        expect(alone!.tokens).toEqual(together[i]!.tokens);
        drafter.forget(text.sequenceId);
      }
    });

    test('goes on when the text went another way than it drafted', async () => {
      const text = await written(0);
      const [first] = await ready(ask(text));
      const other = Int32Array.from([...text.tokens, ...(first!.tokens.slice(0, 1)), 7, 8]);
      await readText(bench.target.engine, { ...text, tokens: other }, { from: TEXT_TOKENS - 1, to: other.length - 1 });
      const again = ask({ ...text, tokens: other });
      const [second] = await ready(again);
      drafter.forget(0);
      const [fresh] = await ready({ ...again, sampler: samplerOf(0) });
      expect(second!.tokens).toEqual(fresh!.tokens);
      drafter.forget(0);
    });

    test('gives its pages back when it forgets, and once only', async () => {
      const text = await written(0);
      await ready(ask(text));
      for (const memory of ['target', 'draftModel'] as const) expect(bench[memory].kv.numHeld > 0, memory).toBe(memory === takesFrom);
      drafter.forget(0);
      drafter.forget(0);
      for (const { kv } of [bench.target, bench.draftModel]) {
        kv.checkIntegrity();
        expect(kv.numHeld).toBe(0);
      }
      expect(drafter.heldPages).toBe(0);
    });

    test('without a page to spare it proposes something that needs none, or nothing', async () => {
      const text = await written(0);
      const takers = [bench.target, bench.draftModel].map(({ kv }) => {
        const pages = kv.open(kv.match('taker', new Int32Array(0), { spanTokens: 64, passingHeads: new Int32Array(0), passedPages: () => ({ from: 0, to: 0 }) }));
        expect(kv.reserve(pages, POOL_PAGES * 64)).toBe(true);
        return () => { kv.release(pages); };
      });
      const [draft] = await drafter.draft([ask(text)]);
      expect(draft!.tokens.length > 0 || draft!.reason !== null).toBe(true);
      expect(drafter.heldPages).toBe(0);
      for (const giveBack of takers) giveBack();
      drafter.forget(0);
    });

    test('gives the pages it holds of the target\'s memory to those who need them, and begins anew', async () => {
      const text = await written(0);
      const [before] = await ready(ask(text));
      drafter.releasePages();
      expect(drafter.heldPages).toBe(0);
      expect(bench.target.kv.numHeld).toBe(0);
      const [after] = await ready(ask(text));
      expect(after!.tokens).toEqual(before!.tokens);
      drafter.forget(0);
    });
  });
}

function samplerOf(temperature: number): Sampler {
  const settings: SamplerSettings = {
    temperature, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [],
  };
  return new Sampler(settings, { seed: 3, promptIds: new Int32Array(0), stopTokenIds: [], minTokens: 0, reproducible: false, scratch: newSamplerScratch(VOCAB) });
}
