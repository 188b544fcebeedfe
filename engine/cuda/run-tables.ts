/**
 * A run as numbers: the tables that kernels/CONTRACT.md describes, from chunks and their page lists. What the
 * device is given is one block of tables and two arrays of page ids and their positions; lists that lie in the page tables
 * that it keeps (kept-tables.ts) are named by their place there. Decode runs are padded to sizes that come back, so that a
 * recorded run serves them all. Pure. Called by cuda-engine.ts.
 */
import { LOGICAL_PAGE_TOKENS, PAGE_TOKENS, type AttentionPlan, type PagePlan } from '../../kvcache/page-lists/page-list.ts';
import type { Chunk } from '../engine.ts';
import { IntList } from './int-list.ts';
import { positionsOf, type KeptTable } from './kept-tables.ts';
import type { Move, MovedEntry } from './moved-pages.ts';
import { CHUNK_FIELDS, LIST_FIELDS, tableOffsets, UNIT_FIELDS, type TableName, type TableOffsets, type TableSizes } from './table-layout.ts';

export interface RunModel {
  readonly layers: number;
  readonly kvHeads: number;
  readonly group: number;
  /** Pairs of channels that RoPE turns. */
  readonly pairs: number;
  /** Some layer has a sliding window: the positions of listed pages are needed. */
  readonly hasWindows: boolean;
  /** Rows of one block of attention by Hopper's instructions; null where it is not used. */
  readonly hopperRows: number | null;
  /** Prefill is scored by Hopper's instructions. */
  readonly hopperScores: boolean;
  /** What Hopper's attention reads is widened before: its pages are listed, each once. */
  readonly widens: boolean;
  /** Radians per position for a sequence of so many tokens, where they depend on it (dynamic RoPE); null else. [pairs] */
  readonly frequencies: ((sequenceTokens: number) => Float64Array) | null;
}

/** What a chunk reads of the engine's memory between steps. */
export interface ChunkPlace {
  readonly chunk: Chunk;
  /** Slot of the selection memory, or -1. */
  readonly slot: number;
  readonly fresh: boolean;
  /** The page table of its sequence, if the device keeps it; null: all its lists are listed. */
  readonly table: Pick<KeptTable, 'at' | 'positionOf'> | null;
  /** The page to read for a listed one that is to stand elsewhere. */
  readonly moved: (chunk: Chunk, listed: MovedEntry) => number;
}

/** What of the entries is there before the run. */
export interface Before {
  /** Entries that lie before those of the run. */
  readonly firstEntry: number;
  /** Copies of pages to be made; what the run's lists need is added. */
  readonly moves: Move[];
}

export interface EntryRange {
  readonly first: number;
  readonly count: number;
}

export interface RunTables {
  readonly sizes: TableSizes;
  readonly offsets: TableOffsets;
  /** [offsets.end bytes] */
  readonly block: ArrayBuffer;
  /** Page ids, behind those that were there before. */
  readonly entries: Int32Array;
  /** Position in the text of each entry's first token; null without windows. */
  readonly entryPositions: Int32Array | null;
  /** Candidates of the longest list that is scored. */
  readonly maxCandidates: number;
  readonly maxPick: number;
  /** Pages of the longest list. */
  readonly longestList: number;
  /** Where among all entries the pages are that hopperUnits read, each once; of none where nothing is widened. */
  readonly hopperPages: EntryRange;
  /** Each chunk has one token, and no query head picks for itself. */
  readonly isSingle: boolean;
  readonly moves: readonly Move[];
  readonly pagesRead: number;
  readonly pagesScored: number;
}

/** Rows of one unit of `attend`. */
const UNIT_ROWS = 64;
const NO_PAGES = new Int32Array(0);
/** Position in the text of a page's first token. */
type PositionOf = (page: number) => number;

/** Of pages that are no part of a list. */
const NO_POSITIONS: PositionOf = () => 0;

/** Room on the right of 1, 2, 4, 8, then in steps of an eighth of the power of two. */
export function bucketOf(count: number): number {
  if (count <= 8) return 2 ** Math.ceil(Math.log2(Math.max(count, 1)));
  const step = 2 ** (Math.floor(Math.log2(count - 1)) - 2);
  return Math.ceil(count / step) * step;
}

/** A run that can be recorded: one token or a few of each sequence. */
export function isDecodeRun(chunks: readonly Chunk[]): boolean {
  return chunks.every(({ phase }) => phase === 'decode');
}

function isSingle({ phase, tokens, attention }: Chunk): boolean {
  return phase === 'decode' && tokens.length === 1 && attention.classes.every(({ pickPer }) => pickPer !== 'queryHead');
}

export function buildRunTables(places: readonly ChunkPlace[], model: RunModel, before: Before): RunTables {
  return new Builder(places, model, before).build();
}

class Builder {
  readonly #places: readonly ChunkPlace[];
  readonly #model: RunModel;
  readonly #before: Before;
  readonly #entries: IntList;
  readonly #positions: IntList;
  readonly #chunks: IntList;
  readonly #units = new IntList();
  readonly #hopperUnits = new IntList();
  readonly #writes = new IntList();
  readonly #lists = new IntList();
  readonly #frequencies: Float64Array[] = [];
  readonly #hopperRanges: EntryRange[] = [];
  #pagesRead = 0;
  #pagesScored = 0;
  #maxCandidates = 0;
  #maxPick = 0;
  #longestList = 0;

  constructor(places: readonly ChunkPlace[], model: RunModel, before: Before) {
    this.#places = places;
    this.#model = model;
    this.#before = before;
    const numEntries = places.reduce((sum, place) => sum + entriesOf(place), 0);
    this.#entries = new IntList(numEntries);
    this.#positions = new IntList(model.hasWindows ? numEntries : 0);
    this.#chunks = new IntList(CHUNK_FIELDS * places.length);
  }

  build(): RunTables {
    let firstRow = 0;
    this.#places.forEach((place, index) => {
      this.#chunk(place, index, firstRow);
      firstRow += place.chunk.tokens.length;
    });
    const hopperPages = this.#listHopperPages();
    const sizes = this.#sizes();
    const offsets = tableOffsets(sizes, this.#model);
    const block = new ArrayBuffer(offsets.end);
    this.#fill(block, sizes, offsets);
    return {
      sizes, offsets, block, moves: this.#before.moves,
      entries: this.#entries.view(), entryPositions: this.#model.hasWindows ? this.#positions.view() : null,
      maxCandidates: this.#maxCandidates, maxPick: this.#maxPick, longestList: this.#longestList, hopperPages,
      pagesRead: this.#pagesRead, pagesScored: this.#pagesScored,
      isSingle: this.#places.every(({ chunk }) => isSingle(chunk)),
    };
  }

  /** The chunk's row of the table, its lists, writes and units. */
  #chunk(place: ChunkPlace, index: number, firstRow: number): void {
    const { chunk, slot, fresh } = place;
    const { layers, kvHeads } = this.#model;
    const { tokens, start, pageTable, attention, phase } = chunk;
    const positionOf = this.#model.hasWindows ? positionOfPages(place) : null;
    const ownPages = this.#append(pageTable.subarray(Math.floor(start / PAGE_TOKENS), Math.ceil((start + tokens.length) / PAGE_TOKENS)), positionOf);
    const firstList = this.#lists.length / LIST_FIELDS;
    // Decode steps that use earlier picks score nothing.
    const scoresAny = fresh || phase === 'prefill';
    for (const plan of attention.classes) this.#list(plan, { place, scoresAny, positionOf });
    this.#count(chunk, fresh);
    this.#write(chunk, firstRow);
    const perQueryHead = attention.classes.some(({ pickPer }) => pickPer === 'queryHead');
    const numHopper = this.#hopperUnits.length;
    this.#addUnits(chunk, index, perQueryHead);
    if (this.#hopperUnits.length > numHopper) this.#hopperRanges.push({ first: ownPages, count: this.#nextEntry - ownPages });
    this.#chunks.pushRow(firstRow, tokens.length, start, ownPages);
    this.#chunks.pushRow(slot, fresh ? 1 : 0, phase === 'decode' ? 1 : tokens.length, firstList);
    this.#chunks.pushRow(index * layers * kvHeads, perQueryHead ? 1 : 0, 0, 0);
    this.#chunks.pushRow(0, 0, 0, 0);
  }

  /** Chunks of one prompt read the same pages over and over: each is listed once, behind the lists. */
  #listHopperPages(): EntryRange {
    if (!this.#model.widens) return { first: this.#nextEntry, count: 0 };
    const entries = this.#entries.view();
    const { firstEntry } = this.#before;
    const pages = new Set<number>();
    for (const { first, count } of this.#hopperRanges) for (let i = first; i < first + count; i++) pages.add(entries[i - firstEntry]!);
    return { first: this.#append(Int32Array.from(pages), this.#model.hasWindows ? NO_POSITIONS : null), count: pages.size };
  }

  /** Where the next page is listed. */
  get #nextEntry(): number {
    return this.#before.firstEntry + this.#entries.length;
  }

  /** Lists pages that stand where they were written. -> where */
  #append(pages: Int32Array, positionOf: PositionOf | null): number {
    const at = this.#nextEntry;
    this.#entries.append(pages);
    if (positionOf !== null) for (const page of pages) this.#positions.push(positionOf(page));
    return at;
  }

  #list(plan: PagePlan, { place, scoresAny, positionOf }: { place: ChunkPlace; scoresAny: boolean; positionOf: PositionOf | null }): void {
    const { fixed, positionDelta, candidates, pick, pickPer, tokens } = plan;
    const fixedAt = positionDelta === null ? this.#find(fixed, place, positionOf) : this.#appendMoved(plan, place, positionOf);
    const listed = scoresAny ? candidates : NO_PAGES;
    const candidatesAt = this.#find(listed, place, positionOf);
    this.#lists.pushRow(fixedAt, fixed.length, candidatesAt, listed.length);
    this.#lists.pushRow(pick, tokens, pickPer === 'queryHead' ? 1 : 0, 0);
    this.#longestList = Math.max(this.#longestList, fixed.length + pick);
    if (pick > 0) {
      this.#maxCandidates = Math.max(this.#maxCandidates, candidates.length);
      this.#maxPick = Math.max(this.#maxPick, pick);
    }
  }

  /** Where pages lie that the device has, or are listed now. */
  #find(pages: Int32Array, { table }: ChunkPlace, positionOf: PositionOf | null): number {
    return table?.at(pages) ?? this.#append(pages, positionOf);
  }

  /** Lists the copies of the fixed pages that move, and the others. -> where */
  #appendMoved({ fixed, positionDelta, tokens }: PagePlan, { chunk, moved }: ChunkPlace, positionOf: PositionOf | null): number {
    const at = this.#nextEntry;
    for (let i = 0; i < fixed.length; i++) {
      const isFull = i < fixed.length - 1 || tokens % PAGE_TOKENS === 0;
      this.#entries.push(moved(chunk, { page: fixed[i]!, delta: positionDelta![i]!, isFull }));
      if (positionOf !== null) this.#positions.push(positionOf(fixed[i]!));
    }
    return at;
  }

  #count({ attention }: Chunk, fresh: boolean): void {
    const { classes } = attention;
    const heads = headsOfClasses(attention);
    classes.forEach(({ fixed, pick, pickPer, candidates }, i) => {
      const lists = heads[i]! * (pickPer === 'queryHead' ? this.#model.group : 1);
      this.#pagesRead += lists * (fixed.length + pick);
      if (fresh && pick > 0 && pick < candidates.length) this.#pagesScored += lists * candidates.length;
    });
  }

  /** One write for each logical page that the chunk touches. */
  #write({ start, tokens, pageTable }: Chunk, firstRow: number): void {
    const end = start + tokens.length;
    for (let at = start; at < end;) {
      const next = Math.min((Math.floor(at / LOGICAL_PAGE_TOKENS) + 1) * LOGICAL_PAGE_TOKENS, end);
      const page = Math.floor(at / PAGE_TOKENS);
      const tail = Math.min(PAGE_TOKENS, end - page * PAGE_TOKENS);
      this.#writes.pushRow(firstRow + at - start, next - at, pageTable[page]! * PAGE_TOKENS + at % PAGE_TOKENS, tail);
      at = next;
    }
  }

  #addUnits({ phase, tokens }: Chunk, index: number, perQueryHead: boolean): void {
    const { group, hopperRows } = this.#model;
    if (perQueryHead) {
      for (let member = 0; member < group; member++) this.#units.pushRow(index, 0, member, 0);
      return;
    }
    const rows = tokens.length * group;
    if (hopperRows !== null && phase === 'prefill' && rows >= hopperRows) {
      // The last rows see the most tokens: heaviest first.
      for (let block = Math.ceil(rows / hopperRows) - 1; block >= 0; block--) this.#hopperUnits.pushRow(index, block, 0, 0);
    } else {
      for (let block = 0; block * UNIT_ROWS < rows; block++) this.#units.pushRow(index, block, 0, 0);
    }
  }

  #sizes(): TableSizes {
    const chunks = this.#places.map(({ chunk }) => chunk);
    const size = isDecodeRun(chunks) ? bucketOf : (count: number): number => count;
    const rows = size(chunks.reduce((sum, { tokens }) => sum + tokens.length, 0));
    const outputs = chunks.reduce((sum, chunk) => sum + outputRows(chunk), 0);
    // Whether any chunk scores changes the recorded run, how many do not.
    const scoring = this.#places.filter(scores).length;
    const isDecode = isDecodeRun(chunks);
    return {
      rows, chunks: size(chunks.length), lists: size(this.#lists.length / LIST_FIELDS), writes: size(this.#writes.length / UNIT_FIELDS),
      units: this.#units.length === 0 ? 0 : size(this.#units.length / UNIT_FIELDS), hopperUnits: this.#hopperUnits.length / UNIT_FIELDS,
      scoreUnits: scoring === 0 ? 0 : isDecode ? size(chunks.length) : scoring,
      hopperScoreUnits: this.#places.filter((place) => scores(place) && this.#byHopper(place)).length, outputRows: outputs === 0 ? 0 : size(outputs),
      frequencyRows: this.#model.frequencies === null ? 0 : rows + chunks.length,
    };
  }

  #fill(block: ArrayBuffer, sizes: TableSizes, offsets: TableOffsets): void {
    const ints = (name: TableName, length: number): Int32Array => new Int32Array(block, offsets[name], length);
    const tokens = ints('tokens', sizes.rows).fill(-1);
    const positions = ints('positions', sizes.rows);
    const frequencyRow = this.#model.frequencies === null ? null : ints('frequencyRow', sizes.rows);
    const wanted = ints('outputRows', sizes.outputRows).fill(-1);
    const classOf = new Uint8Array(block, offsets.classOf, sizes.chunks * this.#model.layers * this.#model.kvHeads);
    ints('chunks', sizes.chunks * CHUNK_FIELDS).set(this.#chunks.view());
    let row = 0;
    let output = 0;
    this.#places.forEach(({ chunk }, index) => {
      classOf.set(chunk.attention.classOf, index * chunk.attention.classOf.length);
      for (let i = chunk.tokens.length - outputRows(chunk); i < chunk.tokens.length; i++) wanted[output++] = row + i;
      tokens.set(chunk.tokens, row);
      for (let i = 0; i < chunk.tokens.length; i++) positions[row + i] = chunk.start + i;
      if (frequencyRow !== null) this.#setFrequencies(chunk, frequencyRow.subarray(row, row + chunk.tokens.length));
      row += chunk.tokens.length;
    });
    ints('lists', sizes.lists * LIST_FIELDS).set(this.#lists.view());
    ints('writes', sizes.writes * UNIT_FIELDS).set(this.#writes.view());
    setUnits(ints('units', sizes.units * UNIT_FIELDS), this.#units.view());
    setUnits(ints('hopperUnits', sizes.hopperUnits * UNIT_FIELDS), this.#hopperUnits.view());
    this.#setScoreUnits(ints('scoreUnits', sizes.scoreUnits));
    const frequencies = new Float64Array(block, offsets.frequencies, sizes.frequencyRows * this.#model.pairs);
    this.#frequencies.forEach((values, i) => { frequencies.set(values, i * this.#model.pairs); });
  }

  #setScoreUnits(scoreUnits: Int32Array): void {
    scoreUnits.fill(-1);
    if (scoreUnits.length === 0) return;
    const scoring = [...this.#places.keys()].filter((index) => scores(this.#places[index]!));
    const byHopper = (index: number): boolean => this.#byHopper(this.#places[index]!);
    scoreUnits.set([...scoring.filter((index) => !byHopper(index)), ...scoring.filter(byHopper)]);
  }

  /** Query heads pick for themselves in decode only. */
  #byHopper({ chunk }: ChunkPlace): boolean {
    return this.#model.hopperScores && chunk.phase === 'prefill';
  }

  /** The prompt has one base, each later token that of its own length. */
  #setFrequencies({ start, promptTokens }: Chunk, rows: Int32Array): void {
    const ofLength = this.#model.frequencies!;
    const add = (sequenceTokens: number): number => this.#frequencies.push(ofLength(sequenceTokens)) - 1;
    const ofPrompt = start < promptTokens ? add(promptTokens) : 0;
    for (let i = 0; i < rows.length; i++) rows[i] = start + i < promptTokens ? ofPrompt : add(start + i + 1);
  }
}

/** How many of the chunk's rows of logits are asked for: the last ones. */
export function outputRows({ logits, tokens }: Chunk): number {
  return { none: 0, last: 1, all: tokens.length }[logits];
}

/** Entries that a chunk is expected to take: its own pages and those of its lists, few where most lie in its kept table. */
function entriesOf({ chunk: { start, tokens, attention }, table }: ChunkPlace): number {
  const own = Math.ceil((start + tokens.length) / PAGE_TOKENS) - Math.floor(start / PAGE_TOKENS);
  return table !== null ? own : attention.classes.reduce((sum, { fixed, candidates }) => sum + fixed.length + candidates.length, own);
}

function positionOfPages({ chunk, table }: ChunkPlace): PositionOf {
  if (table !== null) return (page) => table.positionOf(page);
  const positions = positionsOf(chunk.pageTable);
  return (page) => positions.get(page) ?? 0;
}

/** How many heads read each list. */
function headsOfClasses({ classes, classOf }: AttentionPlan): Int32Array {
  if (classes.length === 1) return Int32Array.of(classOf.length);
  const heads = new Int32Array(classes.length);
  for (let head = 0; head < classOf.length; head++) heads[classOf[head]!]!++;
  return heads;
}

function scores({ fresh, slot }: ChunkPlace): boolean {
  return fresh && slot >= 0;
}

function setUnits(table: Int32Array, units: Int32Array): void {
  for (let at = units.length; at < table.length; at += UNIT_FIELDS) table[at] = -1;
  table.set(units);
}
