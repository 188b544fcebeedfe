/**
 * The page lists of one run of the session, as row numbers of each layer: what the graph gathers, and, when pages
 * are selected in the graph, what it selects from and how picked and given rows are laid out. Pure: numbers
 * in, numbers out. Called by run-inputs.ts.
 */
import type { PagePlan } from '../../kvcache/page-lists/page-list.ts';

/** One list: what one KV head reads for one chunk. */
export interface ListItem {
  /** Writes the rows of memory that the head has in the pages to target[at..]. */
  readonly fillRows: (target: Int32Array, at: number, pages: Int32Array) => void;
  readonly plan: PagePlan;
  /** Page ids of plan.fixed, rotated copies in place of shifted pages. */
  readonly fixed: Int32Array;
  /** Rows picked before, instead of selecting now; null when plan.pick is 0 or the graph selects. */
  readonly picked: Int32Array | null;
  /** The graph picks plan.pick of the candidates in this run. */
  readonly selects: boolean;
}

export interface LayerLists {
  /** Rows given; without selection these are the lists themselves, one after the other. */
  readonly rows: Int32Array;
  /** Length of each list, padding included. [lists] */
  readonly lengths: Int32Array;
  /** Items whose pages the graph picks; at least one entry, so that no tensor is empty. [selected] */
  readonly items: Int32Array;
  /** Rows to choose from, padded with row 0. [selected, numCandidates] */
  readonly candidates: Int32Array;
  readonly numCandidates: number;
  /** 0, or -1e30 for padding. [selected, numCandidates] */
  readonly bias: Float32Array;
  /** Where each entry of the lists stands in (picked rows, given rows). [sum of lengths] */
  readonly order: Int32Array;
}

const PADDING_BIAS = -1e30;
const NONE = new Int32Array(0);
const NO_BIAS = new Float32Array(0);

/** Lists as given: no selection in this run. `equal`: all padded to the longest (with row 0, behind the valid tokens). */
export function givenLists(items: readonly ListItem[], equal: boolean): LayerLists {
  const lengths = listLengths(items, equal);
  const rows = new Int32Array(sum(lengths));
  let offset = 0;
  items.forEach((item, i) => {
    writeGiven(rows, offset, item);
    offset += lengths[i]!;
  });
  return { ...givenRows(rows), lengths };
}

/** Rows that are laid out already. */
export function givenRows(rows: Int32Array): LayerLists {
  return { rows, lengths: NONE, items: NONE, candidates: NONE, numCandidates: 0, bias: NO_BIAS, order: NONE };
}

/** Lists of which the graph picks `pick` entries each for the items that have candidates. */
export function selectedLists(items: readonly ListItem[], { equal, pick }: { equal: boolean; pick: number }): LayerLists {
  const lengths = listLengths(items, equal);
  const chosen = items.flatMap((item, i) => (item.selects ? [i] : []));
  const selected = Int32Array.from(chosen.length > 0 ? chosen : [0]);
  const numPicked = selected.length * pick;
  const given = allGivenRows(items);
  const padding = numPicked + given.length - 1;
  const order = new Int32Array(sum(lengths)).fill(padding);
  let offset = 0;
  let nextGiven = numPicked;
  let nextPicked = 0;
  items.forEach((item, i) => {
    let at = offset;
    if (item.selects) for (let p = 0; p < pick; p++) order[at++] = nextPicked++;
    for (let g = 0; g < numGiven(item); g++) order[at++] = nextGiven++;
    offset += lengths[i]!;
  });
  return { rows: given, lengths, items: selected, ...candidateRows(items, selected, pick), order };
}

/** Rows of every item that are known now, and row 0 for padding at the end. */
function allGivenRows(items: readonly ListItem[]): Int32Array {
  const rows = new Int32Array(items.reduce((count, item) => count + numGiven(item), 0) + 1);
  let offset = 0;
  for (const item of items) offset = writeGiven(rows, offset, item);
  return rows;
}

function numGiven({ picked, fixed }: ListItem): number {
  return (picked?.length ?? 0) + fixed.length;
}

/** Picked rows first: the last entry of a list is its partial page. Returns the offset behind them. */
function writeGiven(rows: Int32Array, offset: number, { picked, fixed, fillRows }: ListItem): number {
  let at = offset;
  if (picked !== null) {
    rows.set(picked, at);
    at += picked.length;
  }
  fillRows(rows, at, fixed);
  return at + fixed.length;
}

function candidateRows(items: readonly ListItem[], selected: Int32Array, pick: number) {
  const numCandidates = selected.reduce((most, i) => Math.max(most, items[i]!.selects ? items[i]!.plan.candidates.length : 0), pick);
  const candidates = new Int32Array(selected.length * numCandidates);
  const bias = new Float32Array(candidates.length).fill(PADDING_BIAS);
  selected.forEach((index, s) => {
    const { plan: { candidates: pages }, fillRows, selects } = items[index]!;
    if (!selects) return;
    fillRows(candidates, s * numCandidates, pages);
    bias.fill(0, s * numCandidates, s * numCandidates + pages.length);
  });
  return { candidates, numCandidates, bias };
}

/** Entries of each list; an empty one gets one entry of padding, since no tensor may be empty. */
function listLengths(items: readonly ListItem[], equal: boolean): Int32Array {
  const lengths = Int32Array.from(items, ({ fixed, plan }) => Math.max(1, fixed.length + plan.pick));
  return equal ? lengths.fill(lengths.reduce((a, b) => Math.max(a, b))) : lengths;
}

function sum(values: Int32Array): number {
  return values.reduce((a, b) => a + b, 0);
}
