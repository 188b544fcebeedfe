/**
 * An engine without weights: the next token is a hash of all tokens before it, read back from "KV memory"
 * that holds one fingerprint per position. So a page that was recycled, shared or listed wrongly shows:
 * either the chain of fingerprints is broken and `run` throws, or the tokens differ. Ships in the product
 * (`--engine fake`), drives tests of the scheduler and of the HTTP side. Made by ../create.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_TOKENS, type AttentionPlan, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import { checkChunk, ownPages } from '../check-chunk.ts';
import type { Chunk, Engine, EngineSpec, StepResult } from '../engine.ts';
import { PageRows } from '../page-rows.ts';
import { LogitRows } from './logit-rows.ts';

export interface FakeEngineOptions {
  readonly pages: number;
  readonly vocab?: number;
  readonly contextLength?: number;
  readonly layers?: number;
  readonly kvHeads?: number;
  readonly slidingWindow?: readonly (number | null)[];
  readonly headOrder?: Int32Array | null;
  /** Tokens that are never chosen: the model's special tokens. */
  readonly avoid?: readonly number[];
  /** Ends texts: after a share of all prefixes the next token is this one. */
  readonly stop?: { readonly token: number; readonly share: number } | null;
  /** Milliseconds that a step takes at least. */
  readonly stepMs?: number;
}

/** Fingerprint of the empty text. */
const EMPTY = 0x811c9dc5 | 0;
/** In place of the fingerprints behind a truncated text. */
const FORGOTTEN = 0x5eed;

export class FakeEngine implements Engine {
  readonly spec: EngineSpec;
  readonly pages: number;
  readonly pageIds: number;
  readonly #options: FakeEngineOptions;
  readonly #heldRows: PageRows;
  readonly #avoid: ReadonlySet<number>;
  readonly #rows: LogitRows;
  /** Fingerprint of the text up to and including each position. [ids, PAGE_TOKENS] */
  readonly #prints: Int32Array;
  /** Fingerprint of the text before each page. [ids] */
  readonly #before: Int32Array;

  constructor(options: FakeEngineOptions) {
    const { layers = 2, kvHeads = 2, vocab = 8192, contextLength = 1_048_576 } = options;
    this.#options = options;
    this.pages = options.pages;
    this.spec = {
      engine: 'fake', precision: 'none', layers, kvHeads, vocab, contextLength,
      slidingWindow: options.slidingWindow ?? new Array<null>(layers).fill(null),
      headOrder: options.headOrder ?? null,
      keysDependOnPromptLength: false, kvBytesPerToken: Int32Array.BYTES_PER_ELEMENT,
    };
    this.#avoid = new Set(options.avoid);
    this.#rows = new LogitRows(vocab);
    this.pageIds = PageRows.idsFor(options.pages);
    this.#heldRows = new PageRows({ pages: options.pages, ids: this.pageIds, heads: layers * kvHeads });
    this.#prints = new Int32Array(this.pageIds * PAGE_TOKENS);
    this.#before = new Int32Array(this.pageIds);
  }

  async run(step: readonly Chunk[]): Promise<StepResult> {
    const stepMs = this.#options.stepMs ?? 0;
    if (stepMs > 0) await sleep(stepMs);
    this.#rows.clear(step.reduce((sum, chunk) => sum + numRows(chunk), 0));
    const logits = step.map((chunk) => this.#runChunk(chunk));
    const reads = step.map((chunk) => countReads(chunk.attention));
    return {
      logits,
      pagesRead: reads.reduce((sum, { read }) => sum + read, 0),
      pagesScored: reads.reduce((sum, { scored }) => sum + scored, 0),
    };
  }

  /** The token that follows a text with this fingerprint. */
  tokenAfter(print: number): number {
    const { stop = null } = this.#options;
    const hash = mix(print, 0x2545f491);
    if (stop !== null && (hash >>> 0) < stop.share * 2 ** 32) return stop.token;
    let token = mix(hash, 1) >>> 0;
    do token = (token + 1) % this.spec.vocab; while (this.#avoid.has(token) || token === stop?.token);
    return token;
  }

  /** What is forgotten must not be read again: a list that still has it breaks the chain of fingerprints. */
  truncate(sequence: Pick<Chunk, 'sequenceId' | 'pageTable'>, length: number): void {
    if (length % PAGE_TOKENS === 0) return;
    const slot = this.#slot(sequence, length);
    this.#prints.fill(FORGOTTEN, slot, Math.ceil(slot / PAGE_TOKENS) * PAGE_TOKENS);
  }

  release(page: number, heads: Int32Array | null): void {
    this.#heldRows.release(page, heads);
  }

  forget(): void {
    // Picks no pages, so has none to remember.
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #runChunk(chunk: Chunk): Float32Array | null {
    checkChunk(chunk, { ...this.spec, pageIds: this.pageIds });
    this.#checkMemory(chunk);
    for (const page of ownPages(chunk)) this.#heldRows.place(page);
    const first = this.#rows.numRows;
    let print = this.#printBefore(chunk, chunk.start);
    chunk.tokens.forEach((token, i) => {
      const slot = this.#slot(chunk, chunk.start + i);
      if (slot % PAGE_TOKENS === 0) this.#before[slot / PAGE_TOKENS] = print;
      this.#prints[slot] = print = mix(print, token);
      const isLast = i === chunk.tokens.length - 1;
      if (chunk.logits === 'all' || (chunk.logits === 'last' && isLast)) this.#rows.push(this.tokenAfter(print));
    });
    return chunk.logits === 'none' ? null : this.#rows.from(first);
  }

  #printBefore(chunk: Chunk, position: number): number {
    return position === 0 ? EMPTY : this.#prints[this.#slot(chunk, position - 1)]!;
  }

  #slot(chunk: Pick<Chunk, 'pageTable'>, position: number): number {
    return chunk.pageTable[Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS + (position % PAGE_TOKENS);
  }

  /** Every page must continue the text of the page before it, and every list must name pages of this table that its heads have rows of. */
  #checkMemory(chunk: Chunk): void {
    const numPages = Math.ceil(chunk.start / PAGE_TOKENS);
    const { pageTable } = chunk;
    for (let i = 0; i < numPages; i++) {
      if (pageTable[i]! < 0 || (i > 0 && pageTable[i - 1]! < 0)) continue;
      const expected = this.#printBefore(chunk, i * PAGE_TOKENS);
      const found = this.#before[this.#slot(chunk, i * PAGE_TOKENS) / PAGE_TOKENS];
      if (found !== expected) throw new Error(`sequence ${chunk.sequenceId}: page ${pageTable[i]} follows text ${found}, expected ${expected}`);
    }
    const { classes, classOf } = chunk.attention;
    classes.forEach((list, index) => {
      checkList(list, chunk, numPages);
      const head = classOf.indexOf(index);
      // Heads of a class pass pages together.
      if (head >= 0) for (const page of [...list.fixed, ...list.candidates]) this.#heldRows.of(page, head);
    });
  }
}

/** `fixed` and `candidates` are each in the order of the table, so one walk along it finds them all. */
function checkList(list: PagePlan, chunk: Chunk, numPages: number): void {
  for (const entries of [list.fixed, list.candidates]) {
    let index = 0;
    for (const page of entries) {
      while (index < numPages && chunk.pageTable[index] !== page) index++;
      if (index++ === numPages) throw new Error(`sequence ${chunk.sequenceId}: listed page ${page} is not among its ${numPages} pages`);
    }
  }
}

function numRows({ logits, tokens }: Chunk): number {
  return logits === 'none' ? 0 : logits === 'last' ? 1 : tokens.length;
}

/** Pages that a step reads and scores for one chunk, summed over layers and KV heads. */
function countReads({ classes, classOf }: AttentionPlan): { read: number; scored: number } {
  let read = 0;
  let scored = 0;
  for (const index of classOf) {
    const { fixed, candidates, pick } = classes[index]!;
    read += fixed.length + pick;
    scored += candidates.length;
  }
  return { read, scored };
}

/** A 32-bit hash of a fingerprint and the next token (murmur3's finaliser over FNV's step). */
function mix(print: number, token: number): number {
  let hash = Math.imul(print ^ token, 0x01000193) + 0x9e3779b9 | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
