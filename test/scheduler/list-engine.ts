/**
 * An engine whose tokens depend on every key that attention could see: each position's value is a hash of
 * the values that its query reads through the page lists (with their shifts), exact to the token. So two runs
 * agree only if every token of every layer class saw the same text, page by page, selection by selection. Each KV head
 * has rows of its own, so that a head that reads a page that it has passed reads another's values, or throws.
 */
import { PAGE_TOKENS, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk, Engine, EngineSpec, StepResult } from '../../engine/engine.ts';
import { checkChunk, ownPages } from '../../engine/check-chunk.ts';
import { PageRows } from '../../engine/page-rows.ts';

export class ListEngine implements Engine {
  readonly spec: EngineSpec;
  readonly pages: number;
  readonly pageIds: number;
  readonly #rows: PageRows;
  /** Value of each position, for each KV head. [rows, PAGE_TOKENS] */
  readonly #values: Int32Array;
  /** What the classes of a sequence picked, and where; in order of position. */
  readonly #picked = new Map<number, { start: number; index: number; pages: number[] }[]>();

  /** Peaked logits are one token's; soft ones spread: by the last token mostly, and by all that was seen. */
  readonly #soft: boolean;

  constructor(pages: number, spec: Partial<EngineSpec> = {}, { soft = false } = {}) {
    this.pages = pages;
    this.#soft = soft;
    this.pageIds = PageRows.idsFor(pages);
    this.spec = {
      engine: 'list', precision: 'none', layers: 2, kvHeads: 2, vocab: 300, contextLength: 100_000,
      slidingWindow: [null, null], headOrder: Int32Array.of(1, 2, 0, 3), keysDependOnPromptLength: false, kvBytesPerToken: 4, ...spec,
    };
    this.#rows = new PageRows({ pages, ids: this.pageIds, heads: this.#numHeads });
    this.#values = new Int32Array(pages * this.#numHeads * PAGE_TOKENS);
  }

  run(step: readonly Chunk[]): Promise<StepResult> {
    return Promise.resolve({ logits: step.map((chunk) => this.#chunk(chunk)), pagesRead: 0, pagesScored: 0 });
  }

  truncate({ sequenceId }: Pick<Chunk, 'sequenceId'>, length: number): void {
    this.#picked.set(sequenceId, (this.#picked.get(sequenceId) ?? []).filter(({ start }) => start < length));
  }

  release(page: number, heads: Int32Array | null): void {
    this.#rows.release(page, heads);
  }

  forget(sequenceId: number): void {
    this.#picked.delete(sequenceId);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #chunk(chunk: Chunk): Float32Array | null {
    checkChunk(chunk, { ...this.spec, pageIds: this.pageIds });
    for (const page of ownPages(chunk)) this.#rows.place(page);
    const { attention, tokens, start } = chunk;
    const isRead = attention.classes.map((_, index) => attention.classOf.includes(index));
    const windows = attention.classes.map((_, index) => this.#windowOf(chunk, index));
    const before = attention.classes.map((list, index) => (isRead[index] && windows[index] === null ? this.#sum(chunk, list, index) : 0));
    let own = 0;
    const rows: { value: number; token: number }[] = [];
    tokens.forEach((token, i) => {
      const seen = before.map((sum, index) => {
        const window = windows[index] ?? null;
        if (!isRead[index]) return 0;
        return window === null ? (sum + own) | 0 : this.#windowSum(chunk, index, { position: start + i, window });
      });
      const value = seen.reduce((print, sum) => mix(print, sum), mix(token, start + i));
      for (let head = 0; head < this.#numHeads; head++) this.#values[this.#slot(this.#pageOf(chunk, start + i), head) + (start + i) % PAGE_TOKENS] = value;
      own = (own + mix(value, 0)) | 0;
      rows.push({ value, token });
    });
    const wanted = chunk.logits === 'none' ? [] : chunk.logits === 'last' ? rows.slice(-1) : rows;
    if (this.#soft) return softLogits(wanted, this.spec.vocab);
    return logits(wanted.map(({ value }) => (mix(value, 77) >>> 0) % this.spec.vocab), this.spec.vocab);
  }

  get #numHeads(): number {
    return this.spec.layers * this.spec.kvHeads;
  }

  #pageOf({ pageTable }: Chunk, position: number): number {
    return pageTable[Math.floor(position / PAGE_TOKENS)]!;
  }

  /** Of a page's first value. */
  #slot(page: number, head: number): number {
    return this.#rows.of(page, head) * PAGE_TOKENS;
  }

  /** Sliding window of the layers whose heads are in a class. */
  #windowOf({ attention }: Chunk, index: number): number | null {
    const layer = Math.floor(attention.classOf.indexOf(index) / this.spec.kvHeads);
    return this.spec.slidingWindow[layer] ?? null;
  }

  /** Exactly the positions that the window reaches; the list has to have their pages. */
  #windowSum(chunk: Chunk, index: number, { position, window }: { position: number; window: number }): number {
    const { classes, classOf } = chunk.attention;
    const list = classes[index]!;
    const head = classOf.indexOf(index);
    let sum = 0;
    for (let seen = Math.max(0, position - window + 1); seen < position; seen++) {
      const page = this.#pageOf(chunk, seen);
      if (seen < chunk.start && !list.fixed.includes(page)) throw new Error(`position ${seen} is in the window of ${position}, but not in its list`);
      sum = (sum + mix(this.#values[this.#slot(page, head) + seen % PAGE_TOKENS]!, 0)) | 0;
    }
    return sum;
  }

  /** Of the values that a list shows, in an order-free way: keys carry their position themselves. */
  #sum(chunk: Chunk, list: PagePlan, index: number): number {
    const numPages = Math.ceil(chunk.start / PAGE_TOKENS);
    const head = chunk.attention.classOf.indexOf(index);
    const show = (page: number, delta: number): number => {
      const isPartial = page === chunk.pageTable[numPages - 1] && chunk.start % PAGE_TOKENS !== 0;
      const first = this.#slot(page, head);
      let sum = 0;
      for (let i = 0; i < (isPartial ? chunk.start % PAGE_TOKENS : PAGE_TOKENS); i++) {
        sum = (sum + mix(this.#values[first + i]!, delta)) | 0;
      }
      return sum;
    };
    const fixed = list.fixed.reduce((sum, page, i) => (sum + show(page, list.positionDelta?.[i] ?? 0)) | 0, 0);
    return this.#picks(chunk, list, { index, head }).reduce((sum, page) => (sum + show(page, 0)) | 0, fixed);
  }

  #picks(chunk: Chunk, list: PagePlan, { index, head }: { index: number; head: number }): number[] {
    if (list.pick === 0) return [];
    const known = this.#picked.get(chunk.sequenceId) ?? [];
    const last = known.findLast((picks) => picks.index === index)?.pages;
    if (chunk.attention.selection === 'reuse' && last?.length === list.pick) return last;

    const content = (page: number): number => this.#values[this.#slot(page, head) + PAGE_TOKENS - 1]!;
    const asking = chunk.phase === 'decode' ? chunk.tokens.subarray(0, 1) : chunk.tokens;
    const score = (page: number): number => Math.max(...Array.from(asking, (token) => mix(content(page), token)));
    const picked = [...list.candidates].sort((a, b) => score(b) - score(a)).slice(0, list.pick);
    this.#picked.set(chunk.sequenceId, [...known.slice(-64), { start: chunk.start, index, pages: picked }]);
    return picked;
  }
}

function logits(peaks: number[], vocab: number): Float32Array | null {
  if (peaks.length === 0) return null;
  const rows = new Float32Array(peaks.length * vocab).fill(-50);
  peaks.forEach((peak, row) => { rows[row * vocab + peak] = 20; });
  return rows;
}

function softLogits(rows: readonly { value: number; token: number }[], vocab: number): Float32Array | null {
  if (rows.length === 0) return null;
  const uniform = (a: number, b: number): number => (mix(a, b) >>> 0) / 2 ** 32;
  return Float32Array.from({ length: rows.length * vocab }, (_, i) => {
    const { value, token } = rows[Math.floor(i / vocab)]!;
    return 3 * uniform(token, i % vocab) + 1.5 * uniform(value, i % vocab);
  });
}

function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ Math.imul(b, 0x27d4eb2f), 0x01000193) + 0x9e3779b9 | 0;
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}
