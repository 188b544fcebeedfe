/**
 * From the rows of logits that a step leaves on the device to what its caller is given: rows that samplers read by their
 * heads, the others whole. Rows of a run are overwritten by the next one: heads are given of the last run, and of rows before
 * it of which only the logit of a token is wanted. Knows no layers. Owned by cuda-engine.ts.
 */
import type { Chunk } from '../engine.ts';
import type { LogitRow, StepRows } from '../logit-row.ts';
import type { DeviceMemory, PinnedBuffer } from './device-memory.ts';
import { RowHeads, type HeadAsk, type RowHeadParts } from './row-heads.ts';
import { outputRows } from './run-tables.ts';
import type { Workspace } from './workspace.ts';
import type { Device } from './device.ts';

/** Where a chunk's rows lie and where they go. */
interface RowPlace {
  readonly rows: number;
  /** Row of the run. */
  readonly first: number;
  /** Given whole or by their heads: the first of the step's. */
  readonly to: { readonly whole: number } | { readonly head: number };
  /** [rows] */
  readonly asks: readonly HeadAsk[];
}

export class StepLogits {
  readonly #device: Device;
  readonly #memory: DeviceMemory;
  readonly #workspace: Workspace;
  readonly #vocab: number;
  readonly #stride: number;
  readonly #heads: RowHeads;
  #host: PinnedBuffer | null = null;
  #runs: readonly (readonly RowPlace[])[] = [];

  constructor(parts: RowHeadParts) {
    this.#device = parts.device;
    this.#memory = parts.memory;
    this.#workspace = parts.workspace;
    this.#vocab = parts.vocab;
    this.#stride = parts.stride;
    this.#heads = new RowHeads(parts);
  }

  /** A step of these runs begins; what was given of the one before is gone. */
  begin(runs: readonly (readonly Chunk[])[]): void {
    let [numWhole, numHeads] = [0, 0];
    this.#runs = runs.map((chunks, run) => {
      let row = 0;
      return chunks.map((chunk) => {
        const rows = outputRows(chunk);
        const isWhole = !this.#mayBeHeads(chunk, run === runs.length - 1);
        const place: RowPlace = { rows, first: row, to: isWhole ? { whole: numWhole } : { head: numHeads }, asks: isWhole ? [] : asksOf(chunk, rows) };
        row += rows;
        if (isWhole) numWhole += rows;
        else numHeads += rows;
        return place;
      });
    });
    this.#heads.begin(numHeads);
    const bytes = numWhole * this.#vocab * 4;
    if (bytes > (this.#host?.view.byteLength ?? 0)) this.#host = this.#memory.pin(2 * bytes);
  }

  /** Puts the copies of a run's rows on the stream, behind the run. */
  fetch(run: number): void {
    const places = this.#runs[run]!.filter(({ rows }) => rows > 0);
    if (places.length === 0) return;
    const from = this.#addressOf(this.#runs[run]!);
    for (const place of places) {
      if ('whole' in place.to) this.#copy(from, { ...place, to: place.to.whole });
    }
    for (const { first, asks } of joinedHeads(places)) this.#heads.make(this.#rowAt(from, first), asks);
  }

  /** All rows of the step, when the stream has come to the end of it. */
  read(): StepRows {
    const places = this.#runs.flat();
    const logits = places.map(({ rows, to }) => (rows === 0 || !('whole' in to) ? null : new Float32Array(this.#host!.view, 4 * to.whole * this.#vocab, rows * this.#vocab)));
    if (places.every(({ rows, to }) => 'whole' in to || rows === 0)) return { logits };
    const last = this.#runs.at(-1)!;
    const from = this.#addressOf(last);
    return { logits, heads: this.#runs.flatMap((run) => run.map((place) => this.#headsOf(place, run === last ? from : null))) };
  }

  /** Rows of a run are written over by the next: of those before the last one heads may stand only where nothing else is wanted. */
  #mayBeHeads({ headTemperature, targets }: Chunk, isLastRun: boolean): boolean {
    return this.#heads.areMade && headTemperature !== undefined && (isLastRun || (targets?.every((target) => target >= 0) ?? false));
  }

  /** `from`: the rows of the run, if they are still there. */
  #headsOf({ rows, first, to }: RowPlace, from: bigint | null): LogitRow[] | null {
    if ('whole' in to) return null;
    return Array.from({ length: rows }, (_, i) => this.#heads.read(to.head + i, from === null ? null : this.#rowAt(from, first + i)));
  }

  #rowAt(from: bigint, row: number): bigint {
    return from + BigInt(row * this.#stride * 4);
  }

  #addressOf(places: readonly RowPlace[]): bigint {
    return this.#workspace.get('logits', numRows(places) * this.#stride * 4);
  }

  #copy(from: bigint, { rows, first, to }: { rows: number; first: number; to: number }): void {
    const copy = (row: number, count: number): void => {
      const [target, source] = [this.#host!.address + BigInt((to + row) * this.#vocab * 4), this.#rowAt(from, first + row)];
      this.#device.driver.call('copyToHost', target, source, count * this.#vocab * 4, this.#device.stream);
    };
    if (this.#stride === this.#vocab) {
      if (rows > 0) copy(0, rows);
    } else {
      for (let row = 0; row < rows; row++) copy(row, 1);
    }
  }
}

/** What each row of a chunk is asked that may be given by its head. */
function asksOf({ headTemperature, targets }: Chunk, rows: number): HeadAsk[] {
  return Array.from({ length: rows }, (_, i) => ({ temperature: headTemperature ?? 1, target: targets?.[i] ?? -1 }));
}

/** Rows side by side that are given by their heads. */
function joinedHeads(places: readonly RowPlace[]): { first: number; asks: HeadAsk[] }[] {
  const stretches: { first: number; asks: HeadAsk[] }[] = [];
  for (const { first, asks } of places) {
    if (asks.length === 0) continue;
    const last = stretches.at(-1);
    if (last !== undefined && last.first + last.asks.length === first) last.asks.push(...asks);
    else stretches.push({ first, asks: [...asks] });
  }
  return stretches;
}

function numRows(places: readonly RowPlace[]): number {
  return places.reduce((sum, { rows }) => sum + rows, 0);
}
