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
/** Words of a head: tokens, logits, both sums, whether the row is sound, the logit of its target. */
const RECORD = 2 * HEAD_TOKENS + 4;
/** A colder row has one token, whatever is divided by. */
const MOST_INVERSE = 1e30;

/** What a row is asked: heads for a sampler of this temperature, and the logit of a token, -1 of none. */
export interface HeadAsk {
  readonly temperature: number;
  readonly target: number;
}

/** Where one head lies in the memory that heads are copied to. */
interface HeadViews {
  readonly tokens: Int32Array;
  readonly logits: Float32Array;
  /** Of what is not in the head; at the row's temperature; the target's logit at the end. */
  readonly numbers: Float32Array;
  /** 1 where the row has a largest logit. */
  readonly isSound: Int32Array;
}

export class RowHeads {
  readonly #parts: RowHeadParts;
  readonly #numParts: number;
  /** Inverse temperatures and targets of each run. */
  #asked: PinnedBuffer | null = null;
  /** Of the step, run after run. [rows, RECORD] */
  #heads: PinnedBuffer | null = null;
  /** Of the first heads: they lie where they lay in the step before. */
  #views: HeadViews[] = [];
  #row: PinnedBuffer | null = null;
  #asks: HeadAsk[] = [];
  /** Steps since the beginning: rows of an earlier one are gone. */
  #step = 0;

  constructor(parts: RowHeadParts) {
    this.#parts = parts;
    this.#numParts = Math.ceil(parts.vocab / PART_LOGITS);
  }

  /** Device memory that the head of a row takes while it is made. */
  static bytesPerRow(vocab: number): number {
    return Math.ceil(vocab / PART_LOGITS) * (8 * HEAD_TOKENS + 16) + 4 * RECORD + 8;
  }

  /** Whether rows of so many logits can be given by their heads. */
  get areMade(): boolean {
    return this.#numParts <= MOST_PARTS;
  }

  /** A step begins, with heads of at most so many rows; rows of the one before are about to be written over. */
  begin(rows: number): void {
    this.#step++;
    this.#asks = [];
    this.#asked = this.#atLeast(this.#asked, 8 * rows);
    const heads = this.#atLeast(this.#heads, 4 * RECORD * rows);
    if (heads !== this.#heads) this.#views = [];
    this.#heads = heads;
  }

  /** Puts the heads of the first rows of `logits` on the stream; `read` has them when that is done, behind those made before in this step. */
  make(logits: bigint, asks: readonly HeadAsk[]): void {
    const { kernels, workspace, device, vocab, stride } = this.#parts;
    const rows = asks.length;
    const first = this.#asks.length;
    for (const ask of asks) this.#asks.push(ask);
    const asked = workspace.get('what rows are asked', 8 * rows);
    new Float32Array(this.#asked!.view, 8 * first, rows).set(asks.map(({ temperature }) => (temperature > 0 ? Math.min(1 / temperature, MOST_INVERSE) : 1)));
    new Int32Array(this.#asked!.view, 8 * first + 4 * rows, rows).set(asks.map(({ target }) => target));
    device.driver.call('copyToDevice', asked, this.#asked!.address + BigInt(8 * first), 8 * rows, device.stream);
    const [inverses, targets] = [asked, asked + BigInt(4 * rows)];
    const entries = rows * this.#numParts * HEAD_TOKENS;
    const [tokens, largest] = [workspace.get('tokens of parts', entries * 4), workspace.get('logits of parts', entries * 4)];
    const sums = workspace.get('sums of parts', rows * this.#numParts * 16);
    const heads = workspace.get('heads', rows * RECORD * 4);
    // Behind a replayed run it begins in the ordinary way.
    kernels.get('head_parts').launch({ grid: [this.#numParts, rows], block: [PART_THREADS], early: false }, logits, stride, vocab, inverses, tokens, largest, sums);
    kernels.get('join_heads').launch({ grid: [rows], block: [JOIN_THREADS] }, tokens, largest, sums, inverses, this.#numParts, logits, stride, targets, heads);
    device.driver.call('copyToHost', this.#heads!.address + BigInt(first * RECORD * 4), heads, rows * RECORD * 4, device.stream);
  }

  /**
   * One of the heads of the step, after the stream has made them. `row`: the row itself, where no run has written over it. A row
   * that has no largest logit comes whole, or as one of NaN.
   */
  read(index: number, row: bigint | null): LogitRow {
    const { tokens, logits, numbers, isSound } = this.#views[index] ??= this.#viewsOf(index);
    const { target } = this.#asks[index]!;
    if (isSound[0] !== 1) return row === null ? new Float32Array(this.#parts.vocab).fill(NaN) : this.#fetch(row);
    const step = this.#step;
    return {
      tokens, logits, vocab: this.#parts.vocab, rest: numbers[0]!, restAtTemperature: numbers[1]!,
      target: target < 0 ? null : { token: target, logit: numbers[3]! },
      whole: () => {
        if (step !== this.#step) throw new Error('a row of logits is asked for after the next step has begun');
        if (row === null) throw new Error('a row of logits is asked for of which only the head is there');
        return this.#fetch(row);
      },
    };
  }

  #viewsOf(index: number): HeadViews {
    const { view } = this.#heads!;
    const count = Math.min(HEAD_TOKENS, this.#parts.vocab);
    const at = 4 * index * RECORD;
    return {
      tokens: new Int32Array(view, at, count), logits: new Float32Array(view, at + 4 * HEAD_TOKENS, count),
      numbers: new Float32Array(view, at + 8 * HEAD_TOKENS, 4), isSound: new Int32Array(view, at + 8 * HEAD_TOKENS + 8, 1),
    };
  }

  /** A copy of a row. [vocab] */
  #fetch(row: bigint): Float32Array {
    const { device, memory, vocab } = this.#parts;
    this.#row ??= memory.pin(vocab * 4);
    device.driver.call('copyToHost', this.#row.address, row, vocab * 4, device.stream);
    device.synchronize();
    return new Float32Array(this.#row.view, 0, vocab).slice();
  }

  #atLeast(buffer: PinnedBuffer | null, bytes: number): PinnedBuffer | null {
    return (buffer?.view.byteLength ?? 0) >= bytes ? buffer : this.#parts.memory.pin(2 * bytes);
  }
}
