/**
 * Rows of logits given by their heads: what a step gives so is what it gives whole, in batches, in recorded runs, in
 * chunks that verify drafts, and beside rows that are wanted whole. Called by cuda-engine.test.ts.
 */
import { afterAll, expect, test } from 'vitest';
import type { CudaEngine } from '../../../engine/cuda/cuda-engine.ts';
import type { Chunk } from '../../../engine/engine.ts';
import { HEAD_TOKENS, rowsOf, type RowHead } from '../../../engine/logit-row.ts';
import { scoreToken } from '../../../engine/logprobs.ts';
import { writeTinyModel, type TinyModel } from '../../tiny-model.ts';
import { headOf } from '../head-of.ts';
import { chunkOf, randomText, readText, type Text } from '../texts.ts';

/** More than one part of head_parts. */
const VOCAB = 9000;

export function rowHeadCases(open: (model: TinyModel) => Promise<CudaEngine>): void {
  const model = writeTinyModel({ vocab: VOCAB });
  afterAll(() => { model.remove(); });
  const textOf = (id: number, length: number): Text => randomText(id, length, { vocab: VOCAB, firstPage: 4 * id });
  const last = (engine: CudaEngine, text: Text, tokens = 1, headTemperature?: number) => {
    const chunk = chunkOf(engine, text, { start: text.tokens.length - tokens, end: text.tokens.length }, { phase: 'decode' });
    return headTemperature === undefined ? chunk : { ...chunk, headTemperature };
  };

  function expectHead(row: RowHead, whole: Float32Array, temperature: number): void {
    const wanted = headOf(whole, temperature);
    expect([...row.tokens]).toEqual([...wanted.tokens]);
    expect([...row.logits]).toEqual([...wanted.logits]);
    expect(row.rest / wanted.rest).toBeCloseTo(1, 4);
    expect(row.restAtTemperature / wanted.restAtTemperature).toBeCloseTo(1, 4);
    expect(row.whole()).toEqual(whole);
  }

  test('are the heads of the rows that are given whole, issued, recorded and replayed', async () => {
    const engine = await open(model);
    const texts = [70, 130, 33].map((length, i) => textOf(i, length));
    const temperatures = [0, 0.7, 1.5];
    for (const text of texts) await readText(engine, text, { to: text.tokens.length - 1 });
    const { logits } = await engine.run(texts.map((text) => last(engine, text)));
    const whole = logits.map((row) => row!.slice());
    for (let time = 0; time < 3; time++) {
      const result = await engine.run(texts.map((text, i) => last(engine, text, 1, temperatures[i])));
      expect(result.logits).toEqual([null, null, null]);
      whole.forEach((row, i) => {
        const rows = rowsOf(result, i, VOCAB);
        expect(rows).toHaveLength(1);
        expectHead(rows[0] as RowHead, row, temperatures[i]!);
      });
    }
    await engine.close();
  });

  test('come for every row of a chunk that verifies, beside rows that are wanted whole', async () => {
    const engine = await open(model);
    const [verified, plain] = [textOf(0, 90), textOf(1, 40)];
    for (const text of [verified, plain]) await readText(engine, text, { to: text.tokens.length - 6 });
    const { logits } = await engine.run([last(engine, verified, 6), last(engine, plain, 6)]);
    const whole = logits.map((rows) => rows!.slice());
    const result = await engine.run([last(engine, verified, 6, 1), last(engine, plain, 6)]);
    expect(result.logits[1]).toEqual(whole[1]);
    const rows = rowsOf(result, 0, VOCAB);
    expect(rows).toHaveLength(6);
    rows.forEach((row, i) => { expectHead(row as RowHead, whole[0]!.subarray(i * VOCAB, (i + 1) * VOCAB), 1); });
    await engine.close();
  });

  test('are given of the last run of a step; rows of the runs before it come whole', async () => {
    const engine = await open(model);
    const text = textOf(0, 60);
    await readText(engine, text, { to: 58 });
    const chunk = (start: number) => ({ ...chunkOf(engine, text, { start, end: start + 1 }), headTemperature: 1 });
    const result = await engine.run([chunk(58), chunk(59)]);
    expect(result.logits[0]).toHaveLength(VOCAB);
    expect(result.logits[1]).toBeNull();
    const first = result.logits[0]!.slice();
    expect((rowsOf(result, 1, VOCAB)[0] as RowHead).tokens).toHaveLength(HEAD_TOKENS);
    expect(relative(first, await readText(engine, text, { from: 58, to: 59 }))).toBeLessThan(0.01);
    await engine.close();
  });

  test('score a text: with the logit of each token that follows, in runs before the last one too', async () => {
    const engine = await open(model);
    const text = textOf(0, 200);
    const whole = await readText(engine, text, { chunkTokens: 70 });
    engine.forget(text.sequenceId);
    const chunk = (start: number, end: number): Chunk => {
      const targets = new Int32Array(end - start).fill(-1);
      targets.set(text.tokens.subarray(start + 1, end + 1));
      return { ...chunkOf(engine, text, { start, end }), targets, headTemperature: 1 };
    };
    // No page border: three runs.
    const result = await engine.run([chunk(0, 70), chunk(70, 140), chunk(140, 200)]);
    expect(result.logits).toEqual([null, null, null]);
    const rows = [0, 1, 2].flatMap((i) => rowsOf(result, i, VOCAB)) as RowHead[];
    expect(rows).toHaveLength(200);
    rows.forEach((row, i) => {
      const wanted = whole.subarray(i * VOCAB, (i + 1) * VOCAB);
      const token = text.tokens[i + 1];
      expect(row.target).toEqual(token === undefined ? null : { token, logit: wanted[token] });
      if (token === undefined) return;
      const [scored, plain] = [scoreToken(row, token, 3), scoreToken(wanted, token, 3)];
      expect(scored.logprob).toBeCloseTo(plain.logprob, 4);
      expect(scored.top.map((top) => top.token)).toEqual(plain.top.map((top) => top.token));
    });
    // A token that is in no head, and was not named.
    const other = (row: RowHead): number => [...Array(VOCAB).keys()].find((token) => !row.tokens.includes(token) && token !== row.target?.token)!;
    expect(() => scoreToken(rows[0]!, other(rows[0]!), 0)).toThrow('of which only the head is there');
    expect(scoreToken(rows[199]!, other(rows[199]!), 0).logprob).toBeCloseTo(scoreToken(whole.subarray(199 * VOCAB), other(rows[199]!), 0).logprob, 4);
    await engine.close();
  });

  test('cannot be asked for their rows after the next step has begun', async () => {
    const engine = await open(model);
    const text = textOf(0, 20);
    const row = rowsOf(await engine.run([{ ...chunkOf(engine, text, { start: 0, end: 20 }, {}), logits: 'last', headTemperature: 1 }]), 0, VOCAB)[0] as RowHead;
    expect(row.whole()).toHaveLength(VOCAB);
    await engine.run([chunkOf(engine, textOf(1, 10), { start: 0, end: 10 })]);
    expect(() => row.whole()).toThrow('after the next step');
    await engine.close();
  });
}

function relative(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0) / b.reduce((sum, x) => sum + x ** 2, 0));
}
