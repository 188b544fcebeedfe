/**
 * Dense attention: every page, as views of the page table. Knows nothing of heads but their sliding
 * windows. Made by create.ts.
 */
import { PAGE_TOKENS, type AttentionPlan, type HeadGeometry, type PageListPolicy, type PageRange } from './page-list.ts';
import { classifyHeads, windowLists, type HeadClasses } from './head-classes.ts';
import { NO_HEADS, NO_RANGE, pagesFrom, untilBlockEnds } from './lists.ts';

export const DENSE_NAMESPACE = 'dense';

export class DensePages implements PageListPolicy {
  readonly prefixNamespace = DENSE_NAMESPACE;
  readonly spanTokens = PAGE_TOKENS;
  readonly sameInDecode = true;
  readonly passingHeads = NO_HEADS;
  readonly #heads: HeadClasses;

  constructor(geometry: HeadGeometry) {
    this.#heads = classifyHeads(geometry, 1, () => 0);
  }

  isExact(): boolean {
    return true;
  }

  maxChunkTokens(): number {
    return Infinity;
  }

  maxDecodeTokens(start: number): number {
    return untilBlockEnds(start);
  }

  plan(pageTable: Int32Array, start: number): AttentionPlan {
    const { classOf, windows } = this.#heads;
    const classes = [pagesFrom(pageTable, 0, start), ...windowLists(windows, pageTable, start)];
    return { classes, classOf, selection: 'fresh' };
  }

  releasablePages(): PageRange {
    return NO_RANGE;
  }

  passedPages(): PageRange {
    return NO_RANGE;
  }
}
