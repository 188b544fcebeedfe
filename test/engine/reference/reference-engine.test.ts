// The reference engine: the cases of every engine, poisoned memory, and steps that it must refuse.
import { afterAll, expect, test } from 'vitest';
import { makeReference } from '../engine-bench.ts';
import { engineCases } from '../engine.cases.ts';
import { chunkOf, picking, randomText, readText } from '../texts.ts';
import { writeTinyModel } from '../../tiny-model.ts';

engineCases('reference', makeReference, { reference: 0, picked: 0, self: 1e-7 });

const model = writeTinyModel();
afterAll(() => { model.remove(); });

test('pages poisoned and used again give what fresh pages give', async () => {
  const engine = await makeReference(model, 12);
  const text = randomText(1, 600, { vocab: model.spec.vocab });
  const options = { planner: picking(3), chunkTokens: 128 };
  const fresh = await readText(engine, text, options);
  expect(fresh.every(Number.isFinite)).toBe(true);
  engine.poison(text.pageTable);
  expect(await readText(engine, { ...text, pageTable: text.pageTable.toReversed() }, options)).toEqual(fresh);
});

test('poison shows where a page is read that nobody wrote', async () => {
  const engine = await makeReference(model, 12);
  const text = randomText(1, 200, { vocab: model.spec.vocab });
  await readText(engine, text, { to: 150 });
  engine.poison([text.pageTable[1]!]);
  expect((await readText(engine, text, { from: 150 })).every(Number.isNaN)).toBe(true);
});

test('a step with a broken chunk writes nothing', async () => {
  const engine = await makeReference(model, 12);
  const text = randomText(1, 100, { vocab: model.spec.vocab });
  const wanted = await readText(engine, text);
  const other = { ...randomText(2, 100, { vocab: model.spec.vocab }), pageTable: text.pageTable };
  const broken = chunkOf(engine, { ...other, pageTable: Int32Array.of(5) }, { start: 0, end: 100 });
  await expect(engine.run([chunkOf(engine, other, { start: 0, end: 64 }), broken])).rejects.toThrow('page table has 1 pages, the chunk ends in page 1');
  const last = await readText(engine, text, { from: 99 });
  expect(last).toEqual(wanted.slice(99 * model.spec.vocab));
});

test('a page that is not in the page table is not read', async () => {
  const engine = await makeReference(model, 12);
  const text = randomText(1, 100, { vocab: model.spec.vocab });
  await readText(engine, text, { to: 64 });
  const chunk = chunkOf(engine, text, { start: 64, end: 100 });
  const strange = { ...chunk, attention: { ...chunk.attention, classes: [{ ...chunk.attention.classes[0]!, fixed: Int32Array.of(9) }] } };
  await expect(engine.run([strange])).rejects.toThrow('page 9 is read but is not in the page table of sequence 1');
});

test('KV memory costs what its arrays hold', async () => {
  const engine = await makeReference(model, 1);
  const { layers, kvHeads, headDim } = model.spec;
  // Keys and values of 64 tokens, minimum and maximum of 4 logical pages, 8 bytes each.
  expect(engine.spec.kvBytesPerToken * 64).toBe(layers * kvHeads * headDim * 8 * (2 * 64 + 2 * 4));
});
