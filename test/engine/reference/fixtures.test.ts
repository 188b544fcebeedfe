// The reference engine against logits that Hugging Face transformers computed, prefilled in several ways.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ReferenceEngine } from '../../../engine/reference/reference-engine.ts';
import { parseModelSpec } from '../../../engine/model/spec.ts';
import { Weights } from '../../../engine/model/weights.ts';
import { pagesFor, readText, type Text } from '../texts.ts';

interface Expected {
  readonly input_ids: readonly number[];
  readonly last8_logits: readonly (readonly number[])[];
  readonly greedy: readonly number[];
  readonly greedy_margin: readonly number[];
}

const root = join(import.meta.dirname, '../../fixtures/hf');
const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));

async function load(name: string) {
  const dir = join(root, name);
  const spec = parseModelSpec(readJson(join(dir, 'config.json')));
  const expected = readJson(join(dir, 'expected.json')) as Expected;
  const weights = await Weights.open(dir, spec);
  const engine = new ReferenceEngine({ spec, weights, pages: 2 * pagesFor(expected.input_ids.length + expected.greedy.length), headOrder: null });
  weights.close();
  return { engine, expected };
}

/** The prompt and the continuation, on every other page from the end: ids must not matter. */
function textOf({ input_ids, greedy }: Expected): Text {
  const tokens = Int32Array.from([...input_ids, ...greedy]);
  const numPages = pagesFor(tokens.length);
  return { sequenceId: 1, tokens, promptTokens: input_ids.length, pageTable: Int32Array.from({ length: numPages }, (_, i) => 2 * (numPages - i) - 1) };
}

function largestError(logits: Float32Array, expected: readonly (readonly number[])[]): number {
  const wanted = expected.flat();
  return Math.max(...wanted.map((value, i) => Math.abs(logits[logits.length - wanted.length + i]! - value)));
}

function best(logits: Float32Array): number {
  return logits.indexOf(Math.max(...logits));
}

describe.each(readdirSync(root))('%s', (name) => {
  test.each([64, 100, 4096])('logits match in chunks of %i', async (chunkTokens) => {
    const { engine, expected } = await load(name);
    const text = textOf(expected);
    const logits = await readText(engine, text, { chunkTokens, to: text.promptTokens });
    expect(largestError(logits, expected.last8_logits)).toBeLessThan(2e-3);
  });

  test('greedy continuation matches wherever the margin is clear', async () => {
    const { engine, expected } = await load(name);
    const text = textOf(expected);
    let logits = (await readText(engine, text, { chunkTokens: 100, to: text.promptTokens })).slice(-engine.spec.vocab);
    for (let i = 0; i < expected.greedy.length; i++) {
      if (expected.greedy_margin[i]! > 0.01) expect(best(logits), `token ${i}`).toBe(expected.greedy[i]);
      const from = text.promptTokens + i;
      logits = await readText(engine, text, { from, to: from + 1 });
    }
  });
});
