/**
 * Page tables of the sequences that decode, kept from one step to the next: on the host, with what of them is checked,
 * and as rows on the device. A list that is a stretch of its sequence's table is named by where it lies in the row:
 * its pages are neither checked nor listed nor copied again. Nobody has to say that a table has changed: each step
 * compares it with what is kept, bytes with bytes, which costs little. Knows page ids only. Owned by cuda-engine.ts;
 * run-tables.ts asks where lists lie.
 */
import { PAGE_TOKENS } from '../../kvcache/page-lists/page-list.ts';
import { checkBelow } from '../check-chunk.ts';
import type { Chunk } from '../engine.ts';

/** What of a chunk says which pages its sequence has. */
export type Tabled = Pick<Chunk, 'sequenceId' | 'pageTable' | 'start' | 'tokens'>;

/** A piece of a row. */
export interface News {
  readonly pages: Int32Array;
  /** Where it begins among the entries of all rows. */
  readonly first: number;
  /** In the text, of its first page. */
  readonly position: number;
}

/** Entries from..to - 1. */
interface Stretch {
  readonly from: number;
  readonly to: number;
}

const NOTHING: Stretch = { from: 0, to: 0 };

/** Rows are so long at first, and there are so many. */
const FIRST_WIDTH = 256;
const FIRST_ROWS = 16;
/** Lists of no more pages are not looked for in a row: listing them costs less. */
const FEW_PAGES = 8;

export class KeptTables {
  readonly #numPages: number;
  readonly #tables = new Map<number, KeptTable>();
  readonly #freeRows: number[] = [];
  /** [rows, #width] */
  #entries = new Int32Array(0);
  #width = FIRST_WIDTH;
  /** Of the device's memory when rows were last uploaded. */
  #epoch = -1;

  /** Page ids are 0..numPages-1. */
  constructor(numPages: number) {
    this.#numPages = numPages;
  }

  /** Entries of all rows, used ones or not. */
  get length(): number {
    return this.#entries.length;
  }

  /** Brings the row of the chunk's sequence up to date with its page table. */
  bring(chunk: Tabled): KeptTable {
    const length = Math.min(chunk.pageTable.length, Math.ceil((chunk.start + chunk.tokens.length) / PAGE_TOKENS));
    if (length > this.#width) this.#layOut(this.#numRows, 2 ** Math.ceil(Math.log2(length)));
    let table = this.#tables.get(chunk.sequenceId);
    if (table === undefined) this.#tables.set(chunk.sequenceId, table = new KeptTable(this.#numPages, this.#takeRow()));
    table.bring(chunk.pageTable, length);
    return table;
  }

  /** The table that was brought for this chunk; null where it was brought for another page table since. */
  of({ sequenceId, pageTable }: Tabled): KeptTable | null {
    const table = this.#tables.get(sequenceId) ?? null;
    return table?.isOf(pageTable) === true ? table : null;
  }

  forget(sequenceId: number): void {
    const table = this.#tables.get(sequenceId);
    if (table === undefined) return;
    this.#tables.delete(sequenceId);
    this.#freeRows.push(table.first / this.#width);
  }

  /** Pieces of rows that the device has not got; they count as uploaded then. Where `epoch` is another than last time, it has lost all. */
  takeNews(epoch: number): News[] {
    const hasLost = epoch !== this.#epoch;
    this.#epoch = epoch;
    const news: News[] = [];
    for (const table of this.#tables.values()) {
      const { from, to } = table.takeNews(hasLost);
      if (to > from) news.push({ pages: this.#entries.subarray(table.first + from, table.first + to), first: table.first + from, position: from * PAGE_TOKENS });
    }
    return news;
  }

  get #numRows(): number {
    return this.#entries.length / this.#width;
  }

  #takeRow(): Int32Array {
    if (this.#freeRows.length === 0) this.#layOut(Math.max(FIRST_ROWS, 2 * this.#numRows), this.#width);
    return this.#rowAt(this.#freeRows.pop()!);
  }

  #rowAt(row: number): Int32Array {
    return this.#entries.subarray(row * this.#width, (row + 1) * this.#width);
  }

  /** All rows anew, the used ones first. */
  #layOut(rows: number, width: number): void {
    this.#entries = new Int32Array(rows * width);
    this.#width = width;
    this.#freeRows.length = 0;
    let row = 0;
    for (const table of this.#tables.values()) table.move(this.#rowAt(row++));
    while (row < rows) this.#freeRows.push(row++);
  }
}

/** The page table of one sequence. */
export class KeptTable {
  readonly #numPages: number;
  /** What was brought last: a view of the sequence's own memory. */
  #source: Int32Array = new Int32Array(0);
  /** The first #length entries are those of #source. */
  #row: Int32Array;
  #length = 0;
  /** The bytes of these entries in #row and in #source: views that last until a table has grown. */
  #bytes: readonly [kept: Uint8Array, source: Uint8Array] | null = null;
  /** Entries that were checked; of the others some may be -1. */
  #checked: Stretch = NOTHING;
  /** Entries that the device has not got. */
  #news: Stretch = NOTHING;
  #positions: ReadonlyMap<number, number> | null = null;

  constructor(numPages: number, row: Int32Array) {
    this.#numPages = numPages;
    this.#row = row;
  }

  /** Where the row begins among the entries of all rows. */
  get first(): number {
    return this.#row.byteOffset / Int32Array.BYTES_PER_ELEMENT;
  }

  /** The first `length` entries of `source` are the table from now on. */
  bring(source: Int32Array, length: number): void {
    if (source === this.#source && length === this.#length && this.#isUnchanged()) return;
    const same = firstDifference(this.#row, source, Math.min(this.#length, length));
    this.#source = source;
    this.#bytes = null;
    this.#row.set(source.subarray(same, length), same);
    this.#length = length;
    this.#checked = upTo(this.#checked, same);
    this.#news = { from: Math.min(upTo(this.#news, same).from, same), to: length };
    this.#positions = null;
  }

  isOf(pageTable: Int32Array): boolean {
    return pageTable.buffer === this.#source.buffer && pageTable.byteOffset === this.#source.byteOffset;
  }

  /** Where a list lies among the entries of all rows; null where it has to be listed. */
  at(pages: Int32Array): number | null {
    const from = this.#indexOf(pages);
    return from === null ? null : this.first + from;
  }

  /** Throws RangeError unless all of a list are page ids. */
  check(pages: Int32Array): void {
    const from = this.#indexOf(pages);
    if (from === null) checkBelow('page', pages, this.#numPages);
    else this.#checkStretch({ from, to: from + pages.length });
  }

  /** Position in the text of a page's first token; 0 for one that is not in the table. */
  positionOf(page: number): number {
    this.#positions ??= positionsOf(this.#row.subarray(0, this.#length));
    return this.#positions.get(page) ?? 0;
  }

  /** What the device has not got; it counts as uploaded then. `hasLost`: the device has none of it. */
  takeNews(hasLost: boolean): Stretch {
    const news = hasLost ? { from: 0, to: this.#length } : this.#news;
    this.#news = { from: this.#length, to: this.#length };
    return news;
  }

  /** To another row, of which the device has nothing. */
  move(row: Int32Array): void {
    row.set(this.#row.subarray(0, this.#length));
    this.#row = row;
    this.#bytes = null;
    this.#news = { from: 0, to: this.#length };
  }

  #isUnchanged(): boolean {
    this.#bytes ??= [bytesOf(this.#row, this.#length), bytesOf(this.#source, this.#length)];
    return Buffer.compare(...this.#bytes) === 0;
  }

  /** Which entry a view of the page table begins with; null for few pages, and for those that are no view of it. */
  #indexOf(pages: Int32Array): number | null {
    if (pages.length <= FEW_PAGES || pages.buffer !== this.#source.buffer) return null;
    const from = (pages.byteOffset - this.#source.byteOffset) / Int32Array.BYTES_PER_ELEMENT;
    return from < 0 || from + pages.length > this.#length ? null : from;
  }

  /** Goes on where it was checked before; of stretches apart it remembers the longer one. */
  #checkStretch({ from, to }: Stretch): void {
    const known = this.#checked;
    const goesOn = from >= known.from && from <= known.to;
    if (goesOn && to <= known.to) return;
    checkBelow('page', this.#row.subarray(goesOn ? known.to : from, to), this.#numPages);
    if (goesOn) this.#checked = { from: known.from, to };
    else if (to - from > known.to - known.from) this.#checked = { from, to };
  }
}

/** Where in the text each page of a table begins. */
export function positionsOf(pageTable: Int32Array): ReadonlyMap<number, number> {
  return new Map(Array.from(pageTable, (page, i) => [page, i * PAGE_TOKENS]));
}

function upTo({ from, to }: Stretch, end: number): Stretch {
  return { from: Math.min(from, end), to: Math.min(to, end) };
}

/** Index of the first of `count` entries that differ; `count` where none does. */
function firstDifference(a: Int32Array, b: Int32Array, count: number): number {
  if (Buffer.compare(bytesOf(a, count), bytesOf(b, count)) === 0) return count;
  return a.findIndex((entry, i) => entry !== b[i]);
}

/** The bytes of the first `count` numbers: a view. */
export function bytesOf(numbers: Int32Array, count = numbers.length): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, count * Int32Array.BYTES_PER_ELEMENT);
}
