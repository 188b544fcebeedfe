/**
 * From the rows of logits that a step leaves on the device to what its caller is given: rows that samplers read by their
 * heads, the others whole. Rows of a run are overwritten by the next one, so heads are given of the last run only. Knows
 * no layers. Owned by cuda-engine.ts.
 */
import type { Chunk } from '../engine.ts';
import type { LogitRow, StepRows } from '../logit-row.ts';
import type { DeviceMemory, PinnedBuffer } from './device-memory.ts';
import { RowHeads, type RowHeadParts } from './row-heads.ts';
import { outputRows } from './run-tables.ts';
import type { Workspace } from './workspace.ts';
import type { Device } from './device.ts';

/** Where a chunk's rows lie and where they go. */
interface RowPlace {
  readonly rows: number;
  /** Row of the run. */
  readonly first: number;
  /** Row of the step's memory on the host; null for rows given by their heads. */
  readonly to: number | null;
  readonly temperature: number;
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
    this.#heads.forgetRows();
    let numWhole = 0;
    this.#runs = runs.map((chunks, run) => {
      const maySplit = run === runs.length - 1 && this.#heads.areMade;
      let row = 0;
      return chunks.map((chunk) => {
        const rows = outputRows(chunk);
        const isWhole = !maySplit || chunk.headTemperature === undefined;
        const place = { rows, first: row, to: isWhole ? numWhole : null, temperature: chunk.headTemperature ?? 1 };
        row += rows;
        if (isWhole) numWhole += rows;
        return place;
      });
    });
    const bytes = numWhole * this.#vocab * 4;
    if (bytes > (this.#host?.view.byteLength ?? 0)) this.#host = this.#memory.pin(2 * bytes);
  }

  /** Puts the copies of a run's rows on the stream, behind the run. */
  fetch(run: number): void {
    const places = this.#runs[run]!;
    if (numRows(places) === 0) return;
    const from = this.#addressOf(places);
    for (const { rows, first, to } of places) if (to !== null) this.#copy(from, { rows, first, to });
    if (!places.some(({ to, rows }) => to === null && rows > 0)) return;
    this.#heads.make(from, places.flatMap(({ rows, temperature }) => new Array<number>(rows).fill(temperature)));
  }

  /** All rows of the step, when the stream has come to the end of it. */
  read(): StepRows {
    const places = this.#runs.flat();
    const logits = places.map(({ rows, to }) => (rows === 0 || to === null ? null : new Float32Array(this.#host!.view, 4 * to * this.#vocab, rows * this.#vocab)));
    if (places.every(({ rows, to }) => to !== null || rows === 0)) return { logits };
    const last = this.#runs.at(-1)!;
    const [from, count] = [this.#addressOf(last), numRows(last)];
    return { logits, heads: places.map((place) => (place.to === null ? this.#headsOf(place, from, count) : null)) };
  }

  #headsOf({ rows, first }: RowPlace, from: bigint, count: number): LogitRow[] {
    const heads: LogitRow[] = [];
    for (let row = first; row < first + rows; row++) heads.push(this.#heads.read(from, row, count));
    return heads;
  }

  #addressOf(places: readonly RowPlace[]): bigint {
    return this.#workspace.get('logits', numRows(places) * this.#stride * 4);
  }

  #copy(from: bigint, { rows, first, to }: { rows: number; first: number; to: number }): void {
    const copy = (row: number, count: number): void => {
      const [target, source] = [this.#host!.address + BigInt((to + row) * this.#vocab * 4), from + BigInt((first + row) * this.#stride * 4)];
      this.#device.driver.call('copyToHost', target, source, count * this.#vocab * 4, this.#device.stream);
    };
    if (this.#stride === this.#vocab) {
      if (rows > 0) copy(0, rows);
    } else {
      for (let row = 0; row < rows; row++) copy(row, 1);
    }
  }
}

function numRows(places: readonly RowPlace[]): number {
  return places.reduce((sum, { rows }) => sum + rows, 0);
}
