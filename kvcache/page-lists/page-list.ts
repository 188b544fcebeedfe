/**
 * The page list: which pages of KV memory one attention call reads. Every long-context technique is a
 * PageListPolicy that fills this record; the engine reads lists and never learns a technique's name.
 * Knows page ids only: no bytes, no tensors. Called by the scheduler when it builds a step.
 */

/** Tokens per page of KV memory. */
export const PAGE_TOKENS = 64;
/** Tokens per logical page: the unit that min/max key statistics describe (LServe, arXiv 2502.14866). */
export const LOGICAL_PAGE_TOKENS = 16;
/**
 * Engines may add up attention over a long text by blocks of so many tokens, counted from its beginning: no decode chunk
 * of a list that holds the whole text goes beyond one, so that it adds up what single steps add up.
 */
export const BLOCK_TOKENS = 1024;
/** Pages that the lists of one chunk may move (positionDelta): engines keep turned copies of them. */
export const MAX_MOVED_PAGES = 256;

/**
 * What the heads of one class read, besides the chunk's own tokens (those are read causally, always).
 * Keys carry their position, so order within a list is free; only the last entry of `fixed` may be
 * partial, and the engine keeps it last.
 */
export interface PagePlan {
  /** Physical page ids that are always read, oldest first. [entries] */
  readonly fixed: Int32Array;
  /**
   * fixed[i] is read as if it stood positionDelta[i] tokens later; null means no shift anywhere. Of all lists of a
   * chunk at most MAX_MOVED_PAGES entries are not 0. [entries]
   */
  readonly positionDelta: Int32Array | null;
  /** Physical page ids to choose from, oldest first, all full. Empty when pick is 0. */
  readonly candidates: Int32Array;
  /** How many candidates to read, by score; 0 <= pick <= candidates.length. */
  readonly pick: number;
  /**
   * Who picks: a KV head for all query heads that share it, by the best score among them, or each query head
   * for itself. The latter in decode only, one token a chunk.
   */
  readonly pickPer: 'kvHead' | 'queryHead';
  /** Valid tokens in the finished list: 64 * (fixed + pick) less what the last page lacks. */
  readonly tokens: number;
}

/** The plan of one chunk: one PagePlan per head class, and the class of every KV head of every layer. */
export interface AttentionPlan {
  readonly classes: readonly PagePlan[];
  /** Index into `classes`. [layers * kvHeads] */
  readonly classOf: Uint8Array;
  /**
   * 'fresh': score the candidates now. 'reuse': read the pages picked last time for this sequence, if the
   * engine still has them and their number equals `pick`; else as 'fresh'.
   */
  readonly selection: 'fresh' | 'reuse';
}

/** What a policy must know of the model; plain numbers. */
export interface HeadGeometry {
  readonly layers: number;
  readonly kvHeads: number;
  /** Tokens a query of this layer may look back (itself included), or null for no limit. [layers] */
  readonly slidingWindow: readonly (number | null)[];
  /**
   * KV heads (layer * kvHeads + head) from the most streaming-like to the least, from the model's head
   * file; null when the model has none. [layers * kvHeads]
   */
  readonly headOrder: Int32Array | null;
}

/** What a request asks of attention; names as in the API's `long_context` object. Validated before it gets here. */
export interface AttentionSettings {
  readonly attention: 'dense' | 'streaming' | 'lserve';
  /** Tokens that a retrieval head reads (lserve): sinks + picked + recent. Whole pages. */
  readonly tokenBudget: number;
  /** Tokens at the start that are always read. Whole pages. */
  readonly sinkTokens: number;
  /** Most recent tokens that are always read: the window of streaming heads and of `streaming`. Whole pages. */
  readonly localTokens: number;
  /** Share of KV heads, 0..1, that read only sinks + window (lserve). Rounded to whole heads. */
  readonly streamingHeads: number;
  /** Decode steps that share one selection. */
  readonly selectionInterval: number;
  /** lserve: whether each query head picks its own pages in decode; else a KV head picks for those that share it. */
  readonly selectionPerQueryHead: boolean;
  /** Streaming: number positions inside the list instead of in the text. */
  readonly renumberPositions: boolean;
  /** lserve: whether prefill selects pages too; false leaves the retrieval heads dense in prefill. */
  readonly sparsePrefill: boolean;
}

/** Half-open range of page indices of a text; empty where `to` is not above `from`. */
export interface PageRange {
  readonly from: number;
  readonly to: number;
}

/** One technique, bound to one request's settings and one model. Stateless: safe to share between sequences. */
export interface PageListPolicy {
  /** True when every list this policy makes up to `length` tokens reads every token (the dense result). */
  isExact(length: number): boolean;
  /**
   * Name of the KV content this policy computes: sequences may share prefix pages only within one
   * namespace, since keys and values of deeper layers depend on what earlier tokens could see.
   */
  readonly prefixNamespace: string;
  /**
   * Prefill is cut only at multiples of this (or at the end of the prompt), prefix pages are shared in runs
   * of it, and a prefix hit ends at one: then no list, and no set of queries that select together, depends
   * on where a chunk began. Whole pages.
   */
  readonly spanTokens: number;
  /**
   * True when prefill and decode give a token the same list, so that generated tokens may be recomputed in
   * chunks and shared. If false, both hold only as far as `isExact` does.
   */
  readonly sameInDecode: boolean;
  /**
   * KV heads (layer * kvHeads + head) that read sinks and a window while others read more, ascending: their rows may
   * go back before the page does. The same for all policies of one namespace.
   */
  readonly passingHeads: Int32Array;
  /** The largest prefill chunk that may start at `start`; Infinity when any may. */
  maxChunkTokens(start: number): number;
  /**
   * The largest decode chunk that may start at `start`, so that every token of it reads what a step of its
   * own would list and pick: at least 1; Infinity when any may.
   */
  maxDecodeTokens(start: number): number;
  /**
   * Plan for a chunk of `tokens` tokens at position `start`. `pageTable[i]` is the physical page of
   * positions 64i..64i+63; entries released by `releasablePages` are -1 and are never planned, nor is a page in
   * the list of a head that has passed it.
   */
  plan(pageTable: Int32Array, start: number, tokens: number, phase: 'prefill' | 'decode'): AttentionPlan;
  /** Page indices that no later plan from `start` on reads. */
  releasablePages(start: number): PageRange;
  /** Page indices that no later plan from `start` on reads with a passing head. Ranges begin at one page, and only grow. */
  passedPages(start: number): PageRange;
}
