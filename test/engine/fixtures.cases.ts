/**
 * An engine against logits that Hugging Face transformers computed for small checkpoints of every family. Knows
 * the Engine interface only. Called by the fixture tests of the engines.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Engine } from '../../engine/engine.ts';
import { parseModelSpec, type ModelSpec } from '../../engine/model/spec.ts';
import { Weights } from '../../engine/model/weights.ts';
import { pagesFor, readText, type Text } from './texts.ts';

interface Expected {
  readonly input_ids: readonly number[];
  readonly last8_logits: readonly (readonly number[])[];
  readonly greedy: readonly number[];
  readonly greedy_margin: readonly number[];
}

export interface FixtureTolerance {
  /** Largest difference of one logit. */
  readonly logits: number;
  /** Greedy tokens must agree where the best logit leads by more. */
  readonly margin: number;
}

export type FixtureEngineMaker = (model: { spec: ModelSpec; weights: Weights }, pages: number) => Engine | Promise<Engine>;

const root = join(import.meta.dirname, '../fixtures/hf');

export function fixtureCases(make: FixtureEngineMaker, tolerance: FixtureTolerance): void {
  describe.each(readdirSync(root))('%s', (name) => {
    test.each([64, 100, 4096])('logits match in chunks of %i', async (chunkTokens) => {
      const { engine, expected } = await load(name, make);
      const text = textOf(expected);
      const logits = await readText(engine, text, { chunkTokens, to: text.promptTokens });
      const wanted = Float32Array.from(expected.last8_logits.flat());
      const last = logits.slice(-wanted.length);
      expect(largestError(last, wanted)).toBeLessThan(tolerance.logits);
      await engine.close();
    });

    test('greedy continuation matches wherever the margin is clear', async () => {
      const { engine, expected } = await load(name, make);
      const text = textOf(expected);
      let logits = (await readText(engine, text, { chunkTokens: 100, to: text.promptTokens })).slice(-engine.spec.vocab);
      for (let i = 0; i < expected.greedy.length; i++) {
        if (expected.greedy_margin[i]! > tolerance.margin) expect(best(logits), `token ${i}`).toBe(expected.greedy[i]);
        const from = text.promptTokens + i;
        logits = await readText(engine, text, { from, to: from + 1 });
      }
      await engine.close();
    });
  });
}

async function load(name: string, make: FixtureEngineMaker) {
  const dir = join(root, name);
  const spec = parseModelSpec(readJson(join(dir, 'config.json')));
  const expected = readJson(join(dir, 'expected.json')) as Expected;
  const weights = await Weights.open(dir, spec);
  const engine = await make({ spec, weights }, 2 * pagesFor(expected.input_ids.length + expected.greedy.length));
  weights.close();
  return { engine, expected };
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** The prompt and the continuation, on every other page from the end: ids must not matter. */
function textOf({ input_ids, greedy }: Expected): Text {
  const tokens = Int32Array.from([...input_ids, ...greedy]);
  const numPages = pagesFor(tokens.length);
  return { sequenceId: 1, tokens, promptTokens: input_ids.length, pageTable: Int32Array.from({ length: numPages }, (_, i) => 2 * (numPages - i) - 1) };
}

function largestError(logits: Float32Array, wanted: Float32Array): number {
  return Math.max(...wanted.map((value, i) => Math.abs(logits[i]! - value)));
}

function best(logits: Float32Array): number {
  return logits.indexOf(Math.max(...logits));
}
