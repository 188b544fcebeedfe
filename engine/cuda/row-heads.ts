/**
 * Heads of the rows of logits that lie on the device: two kernels of kernels/sample.cu make them behind a run, one small
 * copy brings them, and a row that is asked for whole is fetched then. Knows no chunk and no sampler. Owned by
 * cuda-engine.ts.
 */
import { HEAD_TOKENS, type LogitRow } from '../logit-row.ts';
import type { Device } from './device.ts';
import type { DeviceMemory, PinnedBuffer } from './device-memory.ts';
import type { Kernels } from './kernels.ts';
import type { Workspace } from './workspace.ts';

export interface RowHeadParts {
  readonly device: Device;
  readonly memory: DeviceMemory;
  readonly workspace: Workspace;
  readonly kernels: Kernels;
  readonly vocab: number;
  /** Elements from row to row on the device. */
  readonly stride: number;
}

/** Logits that one block of head_parts takes, and what join_heads can join. */
const PART_LOGITS = 8192;
const MOST_PARTS = 64;
const PART_THREADS = 256;
const JOIN_THREADS = 1024;
/** Words of a head: tokens, logits, both sums, whether the row is sound, nothing. */
const RECORD = 2 * HEAD_TOKENS + 4;
/** A colder row has one token, whatever is divided by. */
const MOST_INVERSE = 1e30;

/** Where one head lies in the memory that heads are copied to. */
interface HeadViews {
  readonly tokens: Int32Array;
  readonly logits: Float32Array;
  /** Of what is not in the head; at the row's temperature. */
  readonly sums: Float32Array;
  /** 1 where the row has a largest logit. */
  readonly isSound: Int32Array;
}

export class RowHeads {
  readonly #parts: RowHeadParts;
  readonly #numParts: number;
  /** Temperatures, then heads. */
  #host: PinnedBuffer | null = null;
  /** Of each row that was made last: heads of as many rows lie where they lay. */
  #views: readonly HeadViews[] = [];
  #row: PinnedBuffer | null = null;
  /** Runs since the beginning: rows of an earlier one are gone. */
  #run = 0;

  constructor(parts: RowHeadParts) {
    this.#parts = parts;
    this.#numParts = Math.ceil(parts.vocab / PART_LOGITS);
  }

  /** Whether rows of so many logits can be given by their heads. */
  get areMade(): boolean {
    return this.#numParts <= MOST_PARTS;
  }

  /** The rows of logits are about to be written over. */
  forgetRows(): void {
    this.#run++;
  }

  /** Puts the heads of the first rows of `logits` on the stream, each for its temperature; `read` has them when that is done. */
  make(logits: bigint, temperatures: readonly number[]): void {
    const { kernels, workspace, device, vocab, stride } = this.#parts;
    const rows = temperatures.length;
    const host = this.#hostOf(rows);
    new Float32Array(host.view, 0, rows).set(temperatures.map((temperature) => (temperature > 0 ? Math.min(1 / temperature, MOST_INVERSE) : 1)));
    const inverses = workspace.get('inverse temperatures', rows * 4);
    device.driver.call('copyToDevice', inverses, host.address, rows * 4, device.stream);
    const entries = rows * this.#numParts * HEAD_TOKENS;
    const [tokens, largest] = [workspace.get('tokens of parts', entries * 4), workspace.get('logits of parts', entries * 4)];
    const sums = workspace.get('sums of parts', rows * this.#numParts * 16);
    const heads = workspace.get('heads', rows * RECORD * 4);
    // Behind a replayed run it begins in the ordinary way.
    kernels.get('head_parts').launch({ grid: [this.#numParts, rows], block: [PART_THREADS], early: false }, logits, stride, vocab, inverses, tokens, largest, sums);
    kernels.get('join_heads').launch({ grid: [rows], block: [JOIN_THREADS] }, tokens, largest, sums, inverses, this.#numParts, heads);
    device.driver.call('copyToHost', host.address + BigInt(rows * 4), heads, rows * RECORD * 4, device.stream);
  }

  /** One of the `rows` rows that were made, after the stream has done them. A row that has no largest logit comes whole. */
  read(logits: bigint, row: number, rows: number): LogitRow {
    if (this.#views.length !== rows) this.#views = this.#viewsOf(rows);
    const { tokens, logits: largest, sums, isSound } = this.#views[row]!;
    if (isSound[0] !== 1) return this.#fetch(logits, row);
    const run = this.#run;
    return {
      tokens, logits: largest, vocab: this.#parts.vocab, rest: sums[0]!, restAtTemperature: sums[1]!,
      whole: () => {
        if (run !== this.#run) throw new Error('a row of logits is asked for after the next step has begun');
        return this.#fetch(logits, row);
      },
    };
  }

  #viewsOf(rows: number): readonly HeadViews[] {
    const { view } = this.#host!;
    const count = Math.min(HEAD_TOKENS, this.#parts.vocab);
    return Array.from({ length: rows }, (_, row) => {
      const at = 4 * (rows + row * RECORD);
      return {
        tokens: new Int32Array(view, at, count), logits: new Float32Array(view, at + 4 * HEAD_TOKENS, count),
        sums: new Float32Array(view, at + 8 * HEAD_TOKENS, 2), isSound: new Int32Array(view, at + 8 * HEAD_TOKENS + 8, 1),
      };
    });
  }

  /** A copy of a row. [vocab] */
  #fetch(logits: bigint, row: number): Float32Array {
    const { device, memory, vocab, stride } = this.#parts;
    this.#row ??= memory.pin(vocab * 4);
    device.driver.call('copyToHost', this.#row.address, logits + BigInt(row * stride * 4), vocab * 4, device.stream);
    device.synchronize();
    return new Float32Array(this.#row.view, 0, vocab).slice();
  }

  #hostOf(rows: number): PinnedBuffer {
    const bytes = 4 * rows * (1 + RECORD);
    if (this.#host === null || this.#host.view.byteLength < bytes) {
      this.#host = this.#parts.memory.pin(2 * bytes);
      this.#views = [];
    }
    return this.#host;
  }
}
