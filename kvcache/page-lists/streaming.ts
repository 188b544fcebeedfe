/**
 * StreamingLLM (arXiv 2309.17453): sink pages and the most recent pages; what lies between is given back,
 * so memory stays constant however long the text grows. The window is a function of the position alone,
 * in prefill and decode alike: it reaches `localTokens` back from the start of the position's span.
 * Made by create.ts.
 */
import {
  PAGE_TOKENS, type AttentionPlan, type AttentionSettings, type HeadGeometry, type PageListPolicy, type PagePlan, type PageRange,
} from './page-list.ts';
import { classifyHeads, windowLists, type HeadClasses } from './head-classes.ts';
import { DENSE_NAMESPACE } from './dense.ts';
import {
  maxDenseOrSpan, NO_HEADS, NO_RANGE, pagesFor, PREFILL_SPAN_TOKENS, sinksAndRecent, spanPage, untilBlockEnds, windowPage,
} from './lists.ts';

export class StreamingPages implements PageListPolicy {
  readonly prefixNamespace: string;
  readonly spanTokens: number;
  readonly sameInDecode = true;
  readonly passingHeads = NO_HEADS;
  readonly #heads: HeadClasses;
  readonly #numSinks: number;
  readonly #numLocal: number;
  readonly #renumber: boolean;
  /** Up to here sinks and window meet: every list reads everything. */
  readonly #exactTokens: number;

  constructor(settings: AttentionSettings, geometry: HeadGeometry) {
    this.#heads = classifyHeads(geometry, 1, () => 0);
    this.#numSinks = pagesFor(settings.sinkTokens);
    this.#numLocal = pagesFor(settings.localTokens);
    this.#renumber = settings.renumberPositions;
    this.#exactTokens = this.#heads.classOf.includes(0) ? (this.#numSinks + this.#numLocal) * PAGE_TOKENS : Infinity;
    const isDense = this.#exactTokens === Infinity;
    this.spanTokens = isDense ? PAGE_TOKENS : PREFILL_SPAN_TOKENS;
    this.prefixNamespace = isDense
      ? DENSE_NAMESPACE
      : `streaming ${this.#numSinks}+${this.#numLocal} ${this.#renumber ? 'list' : 'text'} positions`;
  }

  isExact(length: number): boolean {
    return length <= this.#exactTokens;
  }

  maxChunkTokens(start: number): number {
    return maxDenseOrSpan(start, this.#exactTokens);
  }

  maxDecodeTokens(start: number): number {
    return Math.min(maxDenseOrSpan(start, this.#exactTokens), untilBlockEnds(start));
  }

  plan(pageTable: Int32Array, start: number): AttentionPlan {
    const { classOf, windows } = this.#heads;
    const own = sinksAndRecent(pageTable, { numSinks: this.#numSinks, recent: this.#recent(start) }, start);
    const classes = [this.#renumber ? this.#renumbered(own, start) : own, ...windowLists(windows, pageTable, start)];
    return { classes, classOf, selection: 'fresh' };
  }

  releasablePages(start: number): PageRange {
    const reached = this.#heads.windows.map((window) => windowPage(start, window));
    return { from: this.#numSinks, to: Math.max(this.#numSinks, Math.min(this.#recent(start), ...reached)) };
  }

  passedPages(): PageRange {
    return NO_RANGE;
  }

  #recent(start: number): number {
    return spanPage(start) - this.#numLocal;
  }

  /**
   * Moves the sinks forward until they stand just before the recent pages. RoPE is relative, so no other
   * key has to move, and queries keep their position in the text.
   */
  #renumbered(list: PagePlan, start: number): PagePlan {
    const gap = this.#recent(start) - this.#numSinks;
    if (gap <= 0) return list;
    return { ...list, positionDelta: new Int32Array(list.fixed.length).fill(gap * PAGE_TOKENS, 0, this.#numSinks) };
  }
}
