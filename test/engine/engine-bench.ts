/**
 * The bench of the engine cases: a tiny model, the engine under test and the reference beside it, and how their
 * logits are compared. Knows no case. Called by engine.cases.ts and by the test files of the engines.
 */
import { afterAll, beforeAll, expect } from 'vitest';
import type { Engine } from '../../engine/engine.ts';
import { Weights } from '../../engine/model/weights.ts';
import { ReferenceEngine } from '../../engine/reference/reference-engine.ts';
import { writeTinyModel, type TinyModel, type TinyModelOptions } from '../tiny-model.ts';
import { randomText, readText, relativeError, type Planner, type Text } from './texts.ts';

export type EngineMaker = (model: TinyModel, pages: number) => Promise<Engine>;

/** Largest relative error (root mean square) of logits. */
export interface EngineTolerance {
  /** Against the float64 reference, where both read the same pages. */
  readonly reference: number;
  /** Against the reference where each picks pages: rounding may tip nearly equal scores. */
  readonly picked: number;
  /** Against itself, computed another way. */
  readonly self: number;
}

/** Pages of each engine on the bench. */
export const PAGES = 40;

/** One model, one engine and one reference for all tests of a group; texts start at page 0. */
export function useBench(options: TinyModelOptions, make: EngineMaker) {
  let model: TinyModel;
  let engine: Engine;
  let reference: Engine;
  beforeAll(async () => {
    model = writeTinyModel(options);
    engine = await make(model, PAGES);
    reference = await makeReference(model, PAGES);
  });
  afterAll(async () => {
    await Promise.all([engine.close(), reference.close()]);
    model.remove();
  });
  return (numTokens: number): { engine: Engine; reference: Engine; text: Text } => {
    engine.forget(1);
    reference.forget(1);
    return { engine, reference, text: randomText(1, numTokens, { vocab: engine.spec.vocab }) };
  };
}

export async function makeReference({ dir, spec }: TinyModel, pages: number): Promise<ReferenceEngine> {
  const weights = await Weights.open(dir, spec);
  try {
    return new ReferenceEngine({ spec, weights, pages, headOrder: null });
  } finally {
    weights.close();
  }
}

export function expectClose(got: Float32Array, wanted: Float32Array, limit: number): void {
  expect(relativeError(got, wanted)).toBeLessThanOrEqual(limit);
}

/** Guards a comparison: what the test varies must show in the logits, or agreement proves nothing. */
export function expectFar(got: Float32Array, other: Float32Array, { reference }: EngineTolerance): void {
  expect(relativeError(got, other)).toBeGreaterThan(2 * reference);
}

/** Decode chunks between the cuts. */
export async function readCuts(engine: Engine, text: Text, cuts: readonly number[], planner: Planner): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  for (let i = 1; i < cuts.length; i++) {
    rows.push(await readText(engine, text, { from: cuts[i - 1]!, to: cuts[i]!, planner, phase: 'decode' }));
  }
  return rows;
}

/** Logits are valid until the next run only. */
export function copyAll(logits: readonly (Float32Array | null)[]): Float32Array[] {
  return logits.map((rows) => Float32Array.from(rows!));
}

export function joined(parts: readonly Float32Array[]): Float32Array {
  return Float32Array.from(parts.flatMap((part) => [...part]));
}
