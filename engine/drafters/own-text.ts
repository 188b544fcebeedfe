/**
 * A text that a drafter reads in place of the sequence's: an opening, then the sequence's tokens from some position on.
 * Keeps its pages and which tokens are written to them; where the sequence went another way than was drafted, it goes
 * back to where both agree. Knows no sampling. Owned by own-text-drafter.ts.
 *
 *   opening.tokens | text[opening.origin] ... text[n - 1]
 *   0 ............ | ......... written ............ length
 */
import type { Chunk, Engine } from '../engine.ts';
import type { KvCache, SequencePages } from '../../kvcache/kv-cache.ts';
import type { PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import type { DraftRequest } from './drafter.ts';

export interface Opening {
  /** At least 1. */
  readonly tokens: Int32Array;
  /** Position in the sequence's text of the token that follows the opening. */
  readonly origin: number;
}

export interface OwnTextParts {
  readonly engine: Engine;
  readonly kv: KvCache;
  readonly policy: PageListPolicy;
}

/** Opened texts share no prefixes: nothing is ever filed under this name. */
const NAMESPACE = 'drafts';

export class OwnText {
  readonly #parts: OwnTextParts;
  readonly #opening: Opening;
  readonly #pages: SequencePages;
  /** Texts of drafters and sequences are told apart by the sign, where they share an engine. */
  readonly #engineId: number;
  /** Tokens in KV memory behind the opening, as far as the opening is in. */
  #tail: number[] = [];
  #written = 0;
  #request: DraftRequest | null = null;

  constructor(sequenceId: number, opening: Opening, parts: OwnTextParts) {
    this.#parts = parts;
    this.#opening = opening;
    this.#engineId = -1 - sequenceId;
    this.#pages = parts.kv.open(parts.kv.match(NAMESPACE, new Int32Array(0), parts.policy));
  }

  get numHeld(): number {
    return this.#pages.table.numHeld;
  }

  get length(): number {
    return this.#lengthFor(this.#request!.text.length);
  }

  /** Tokens that are in no KV memory yet: at least the last one. */
  get unread(): number {
    return this.length - this.#written;
  }

  /** The same once the sequence has so many tokens, if it goes on as is written here. */
  unreadOf(sequenceLength: number): number {
    return this.#lengthFor(sequenceLength) - this.#written;
  }

  /** Goes on from where this text and what is written agree, the last token left out: its logits are wanted. */
  follow(request: DraftRequest): void {
    this.#request = request;
    const { tokens: { length: opened }, origin } = this.#opening;
    const last = Math.max(0, request.text.length - 1 - origin);
    let agreed = 0;
    while (agreed < Math.min(this.#tail.length, last) && this.#tail[agreed] === request.text[origin + agreed]) agreed++;
    const kept = Math.min(this.#written, opened + agreed);
    if (kept < this.#written) this.#truncate(kept);
    this.#release(request.finalTokens);
  }

  /** Pages for the whole text and what will be drafted. */
  reserve(maxTokens: number): boolean {
    return this.#parts.kv.reserve(this.#pages, this.length + maxTokens);
  }

  /** The next tokens, at most `count`; fewer where the lists want a cut. */
  prefillChunk(count: number): Chunk {
    const size = Math.min(count, this.#parts.policy.maxChunkTokens(this.#written));
    return this.#chunk(Int32Array.from({ length: size }, (_, i) => this.#tokenAt(this.#written + i)), 'prefill');
  }

  decodeChunk(token: number): Chunk {
    return this.#chunk(Int32Array.of(token), 'decode');
  }

  /** The tokens of a chunk are in KV memory. */
  wrote(tokens: Int32Array): void {
    const opened = this.#opening.tokens.length;
    tokens.forEach((token, i) => { if (this.#written + i >= opened) this.#tail.push(token); });
    this.#written += tokens.length;
  }

  close(): void {
    this.#parts.kv.release(this.#pages);
    this.#parts.engine.forget(this.#engineId);
  }

  #chunk(tokens: Int32Array, phase: Chunk['phase']): Chunk {
    const pageTable = this.#pages.table.entries;
    const start = this.#written;
    const attention = this.#parts.policy.plan(pageTable, start, tokens.length, phase);
    const logits = phase === 'decode' ? 'last' : 'none';
    return { phase, sequenceId: this.#engineId, tokens, start, pageTable, attention, promptTokens: this.#opening.tokens.length, logits };
  }

  #lengthFor(sequenceLength: number): number {
    return this.#opening.tokens.length + sequenceLength - this.#opening.origin;
  }

  #tokenAt(position: number): number {
    const { tokens, origin } = this.#opening;
    return position < tokens.length ? tokens[position]! : this.#request!.text[origin + position - tokens.length]!;
  }

  #truncate(length: number): void {
    this.#parts.engine.truncate({ sequenceId: this.#engineId, pageTable: this.#pages.table.entries }, length);
    this.#tail.length = Math.max(0, length - this.#opening.tokens.length);
    this.#written = length;
  }

  /** Pages that no later list reads: of tokens that stay only. */
  #release(finalTokens: number): void {
    const position = Math.min(this.#written, this.#opening.tokens.length + Math.max(0, finalTokens - 1 - this.#opening.origin));
    this.#parts.kv.releaseRange(this.#pages, this.#parts.policy.releasablePages(position));
  }
}
