/**
 * LServe (arXiv 2502.14866): some KV heads stream (sinks + local window), the others retrieve: a page of
 * sink, the last pages, and the pages of the middle that score best, within a budget. Up to the budget a
 * retrieval head reads everything. All rules are functions of positions in the text, so that a result does
 * not depend on how the text was cut or on what was cached. Made by create.ts.
 */
import {
  PAGE_TOKENS, type AttentionPlan, type AttentionSettings, type HeadGeometry, type PageListPolicy, type PagePlan, type PageRange,
} from './page-list.ts';
import { classifyHeads, windowLists, type HeadClasses } from './head-classes.ts';
import { DENSE_NAMESPACE } from './dense.ts';
import {
  listTokens, maxDenseOrSpan, NO_RANGE, pagesFor, pagesFrom, PREFILL_SPAN_TOKENS, sinksAndRecent, spanPage, untilBlockEnds,
} from './lists.ts';

/** What a retrieval head reads unasked: a page of sink and two whole recent pages, beside the partial one. */
const RETRIEVAL_SINK_PAGES = 1;
const RETRIEVAL_RECENT_PAGES = 2;
/** One more page of the budget is kept for the partial page, so that `pick` is the same at every position. */
const UNPICKED_PAGES = RETRIEVAL_SINK_PAGES + RETRIEVAL_RECENT_PAGES + 1;
/** The smallest budget that leaves a page to pick, and the smallest that the API takes; a smaller one counts as this. */
const MIN_BUDGET_TOKENS = (UNPICKED_PAGES + 1) * PAGE_TOKENS;

const RETRIEVAL = 0;
const STREAMING = 1;

export class LServePages implements PageListPolicy {
  readonly prefixNamespace: string;
  readonly spanTokens: number;
  readonly sameInDecode = false;
  readonly passingHeads: Int32Array;
  readonly #settings: AttentionSettings;
  readonly #heads: HeadClasses;
  readonly #hasStreaming: boolean;
  readonly #hasRetrieval: boolean;
  readonly #budgetTokens: number;
  /** Up to here the streaming heads read everything. */
  readonly #exactWindow: number;
  /** Up to here every list reads everything, in decode and in prefill. */
  readonly #exactTokens: number;
  readonly #exactPrefillTokens: number;

  constructor(settings: AttentionSettings, geometry: HeadGeometry) {
    this.#settings = settings;
    const streaming = streamingHeads(settings.streamingHeads, geometry);
    this.#hasStreaming = streaming.size > 0;
    this.#heads = classifyHeads(geometry, this.#hasStreaming ? 2 : 1, (head) => (streaming.has(head) ? STREAMING : RETRIEVAL));
    this.#budgetTokens = pagesFor(Math.max(settings.tokenBudget, MIN_BUDGET_TOKENS)) * PAGE_TOKENS;

    this.passingHeads = Int32Array.from(this.#heads.classOf.keys()).filter((head) => this.#hasStreaming && this.#heads.classOf[head] === STREAMING);

    const window = pagesFor(settings.sinkTokens) + pagesFor(settings.localTokens);
    this.#exactWindow = this.#hasStreaming ? window * PAGE_TOKENS : Infinity;
    this.#hasRetrieval = this.#heads.classOf.includes(RETRIEVAL);
    this.#exactTokens = Math.min(this.#exactWindow, this.#hasRetrieval ? this.#budgetTokens : Infinity);
    this.#exactPrefillTokens = settings.sparsePrefill ? this.#exactTokens : this.#exactWindow;
    const isDensePrefill = this.#exactPrefillTokens === Infinity;
    this.spanTokens = isDensePrefill ? PAGE_TOKENS : PREFILL_SPAN_TOKENS;
    this.prefixNamespace = isDensePrefill ? DENSE_NAMESPACE : this.#prefillName(streaming.size);
  }

  isExact(length: number): boolean {
    return length <= this.#exactTokens;
  }

  maxChunkTokens(start: number): number {
    return this.#exactPrefillTokens === Infinity ? Infinity : maxDenseOrSpan(start, this.#exactPrefillTokens);
  }

  /** Up to where a block ends, the window of the streaming heads moves, or the retrieval heads begin to pick or pick anew. */
  maxDecodeTokens(start: number): number {
    const unmoved = Math.min(maxDenseOrSpan(start, this.#exactWindow), untilBlockEnds(start));
    if (!this.#hasRetrieval) return unmoved;
    return Math.min(unmoved, start <= this.#budgetTokens ? this.#budgetTokens + 1 - start : this.#untilFresh(start));
  }

  plan(pageTable: Int32Array, start: number, _tokens: number, phase: 'prefill' | 'decode'): AttentionPlan {
    const classes = [this.#retrievalList(pageTable, start, phase)];
    if (this.#hasStreaming) classes.push(this.#streamingList(pageTable, start));
    classes.push(...windowLists(this.#heads.windows, pageTable, start));
    return { classes, classOf: this.#heads.classOf, selection: phase === 'prefill' ? 'fresh' : this.#selection(start) };
  }

  releasablePages(): PageRange {
    return NO_RANGE;
  }

  /** What lies between sinks and window: streaming heads read it no more. */
  passedPages(start: number): PageRange {
    if (!this.#hasStreaming) return NO_RANGE;
    const from = pagesFor(this.#settings.sinkTokens);
    return { from, to: Math.max(from, this.#recent(start)) };
  }

  #retrievalList(pageTable: Int32Array, start: number, phase: 'prefill' | 'decode'): PagePlan {
    const page = phase === 'prefill' ? spanPage(start) : Math.floor(start / PAGE_TOKENS);
    const isWithinBudget = (phase === 'prefill' ? page * PAGE_TOKENS : start) <= this.#budgetTokens;
    if (isWithinBudget || (phase === 'prefill' && !this.#settings.sparsePrefill)) return pagesFrom(pageTable, 0, start);

    const recent = page - RETRIEVAL_RECENT_PAGES;
    const { fixed } = sinksAndRecent(pageTable, { numSinks: RETRIEVAL_SINK_PAGES, recent }, start);
    const pick = this.#budgetTokens / PAGE_TOKENS - UNPICKED_PAGES;
    const candidates = pageTable.subarray(RETRIEVAL_SINK_PAGES, recent);
    const pickPer = phase === 'decode' && this.#settings.selectionPerQueryHead ? 'queryHead' : 'kvHead';
    return { fixed, positionDelta: null, candidates, pick, pickPer, tokens: listTokens(fixed.length + pick, start) };
  }

  #streamingList(pageTable: Int32Array, start: number): PagePlan {
    const numSinks = pagesFor(this.#settings.sinkTokens);
    return sinksAndRecent(pageTable, { numSinks, recent: this.#recent(start) }, start);
  }

  /** First page of the window of the streaming heads. */
  #recent(start: number): number {
    return spanPage(start) - pagesFor(this.#settings.localTokens);
  }

  /** At a page border a page has become a candidate, so what was picked before is out of date. */
  #selection(start: number): 'fresh' | 'reuse' {
    return start % this.#settings.selectionInterval === 0 || start % PAGE_TOKENS === 0 ? 'fresh' : 'reuse';
  }

  /** Tokens from `start` to the next position that picks anew. */
  #untilFresh(start: number): number {
    const { selectionInterval, selectionPerQueryHead } = this.#settings;
    if (selectionPerQueryHead) return 1;
    return Math.min(selectionInterval - (start % selectionInterval), PAGE_TOKENS - (start % PAGE_TOKENS));
  }

  /** Everything that decides what a prompt token could see, and nothing that decode alone uses. */
  #prefillName(numStreaming: number): string {
    const { sinkTokens, localTokens, sparsePrefill } = this.#settings;
    const budget = sparsePrefill ? `${this.#budgetTokens}` : 'all';
    return `lserve ${budget}, ${numStreaming} heads ${pagesFor(sinkTokens)}+${pagesFor(localTokens)}`;
  }
}

/** The first round(share * heads) of the model's order; none if the model has no order. */
function streamingHeads(share: number, geometry: HeadGeometry): Set<number> {
  const numStreaming = Math.round(share * geometry.layers * geometry.kvHeads);
  return new Set(geometry.headOrder?.subarray(0, numStreaming));
}
