/**
 * Levels of TriForce whose passes are computed and whose tokens are set, so that they agree at given rates: the target and
 * its middle level behind one engine, and a small model below them. Knows no times but those of passes. Called by
 * bench-triforce.ts.
 */
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type AttentionSettings, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import { emptyDraft, type Draft, type Drafter, type DraftRequest } from '../drafters/drafter.ts';
import type { Chunk, Engine, StepResult } from '../engine.ts';
import type { RowHead } from '../logit-row.ts';
import type { CudaEngine } from './cuda-engine.ts';

/** What the small model reads: sinks and recent tokens. */
export const SMALL_TOKENS = 576;
export const SEQUENCE = 1;

export const full: AttentionSettings = {
  attention: 'dense', tokenBudget: 0, sinkTokens: 0, localTokens: 0, streamingHeads: 0,
  selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: false,
};

/** What each level says at a position: a function of the position, so that levels agree at the rates set. */
export class Script {
  readonly #vocab: number;
  readonly #middle: number;
  readonly #lower: number;
  /** Distinguishes runs. */
  readonly #seed: number;

  constructor(vocab: number, { middle, lower, seed }: { middle: number; lower: number; seed: number }) {
    this.#vocab = vocab;
    this.#middle = middle;
    this.#lower = lower;
    this.#seed = seed;
  }

  target(position: number): number {
    return Math.floor(this.#share(position, 1) * this.#vocab);
  }

  middle(position: number): number {
    return this.#orAnother(this.target(position), this.#share(position, 2) < this.#middle);
  }

  lower(position: number): number {
    return this.#orAnother(this.middle(position), this.#share(position, 3) < this.#lower);
  }

  #orAnother(token: number, agrees: boolean): number {
    return agrees ? token : (token + 1) % this.#vocab;
  }

  /** In 0..1, as good as random. */
  #share(position: number, level: number): number {
    let state = Math.imul(position + 1, 0x9e3779b1) ^ Math.imul(level + 8 * this.#seed, 0x85ebca6b);
    state = Math.imul(state ^ (state >>> 16), 0x7feb352d);
    state = Math.imul(state ^ (state >>> 15), 0x846ca68b);
    return ((state ^ (state >>> 16)) >>> 0) / 2 ** 32;
  }
}

/** Computes every pass, then gives rows whose largest logit is the script's; keeps what passes cost. */
export class ScriptedEngine implements Engine {
  readonly #engine: CudaEngine;
  script: Script;
  readonly passes: { level: 'target' | 'middle'; tokens: number; milliseconds: number }[] = [];

  constructor(engine: CudaEngine, script: Script) {
    this.#engine = engine;
    this.script = script;
  }

  get spec() {
    return this.#engine.spec;
  }

  get pages(): number {
    return this.#engine.pages;
  }

  get pageIds(): number {
    return this.#engine.pageIds;
  }

  release(...args: Parameters<Engine['release']>): void {
    this.#engine.release(...args);
  }

  async run(step: readonly Chunk[]): Promise<StepResult> {
    const began = performance.now();
    const result = await this.#engine.run(step);
    const [chunk] = step;
    const level = chunk!.attention.classes.some(({ pick }) => pick > 0) ? 'middle' : 'target';
    this.passes.push({ level, tokens: chunk!.tokens.length, milliseconds: performance.now() - began });
    const heads = Array.from(chunk!.tokens, (_, i) => this.#row(this.script[level](chunk!.start + i + 1)));
    return { ...result, logits: [null], heads: [heads] };
  }

  /** All of the row is one token. */
  #row(token: number): RowHead {
    const { vocab } = this.spec;
    const whole = (): Float32Array => new Float32Array(vocab).fill(-Infinity).fill(0, token, token + 1);
    return { tokens: Int32Array.of(token), logits: Float32Array.of(0), vocab, rest: 0, restAtTemperature: 0, target: null, whole };
  }

  truncate(...args: Parameters<Engine['truncate']>): void {
    this.#engine.truncate(...args);
  }

  forget(sequenceId: number): void {
    this.#engine.forget(sequenceId);
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}

/** A real step of the small model for each token; the token is the script's. */
export class SmallDrafter implements Drafter {
  readonly level = 'model';
  readonly heldPages = 0;
  readonly firstAcceptances = [0.75];
  readonly #engine: CudaEngine;
  readonly #policy: PageListPolicy;
  readonly #script: Script;
  readonly #pageTable = Int32Array.from({ length: SMALL_TOKENS / PAGE_TOKENS + 1 }, (_, i) => i);

  constructor(engine: CudaEngine, script: Script) {
    this.#engine = engine;
    this.#policy = createPageListPolicy(full, engine.spec);
    this.#script = script;
  }

  async draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    const drafts: Draft[] = [];
    for (const { text, maxTokens } of requests) {
      const tokens = Int32Array.from({ length: maxTokens }, (_, i) => this.#script.lower(text.length + i));
      for (const token of tokens) {
        const attention = this.#policy.plan(this.#pageTable, SMALL_TOKENS, 1, 'decode');
        await this.#engine.run([{ phase: 'decode', sequenceId: SEQUENCE, tokens: Int32Array.of(token), start: SMALL_TOKENS, pageTable: this.#pageTable, attention, promptTokens: 1, logits: 'last', headTemperature: 0 }]);
      }
      drafts.push({ ...emptyDraft(''), tokens, distributions: Array<null>(maxTokens).fill(null), classes: new Uint8Array(maxTokens), reason: null });
    }
    return drafts;
  }

  foresee(): null {
    return null;
  }

  unread(): number {
    return 0;
  }

  forget(): void {
    // Keeps nothing.
  }

  releasePages(): void {
    // Holds none of the target's.
  }
}
