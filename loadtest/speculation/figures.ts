/** From what batches measured to the figures of a table. Pure. Called by main.ts. */
import { percentile } from '../statistics.ts';
import type { Measured } from './measure.ts';
import { WORKLOADS, type Workload } from './workloads.ts';

export interface Cell {
  readonly tokens: number;
  readonly batch: number;
  readonly temperature: number;
  readonly workload: Workload;
}

/** One drafter in one cell. */
export interface Figure extends Cell {
  readonly row: string;
  /** Median over the rounds. */
  readonly msPerToken: number;
  /** Tokens of a sequence per pass of the target. */
  readonly tokensPerPass: number;
  /** Times as fast as dense decoding: median of the ratios of each round. */
  readonly gain: number;
  readonly acceptance: number | null;
  readonly levels: Measured['levels'];
  readonly offReasons: readonly string[];
  /** Greedy: answers equal to those of dense decoding, of so many; null where it says nothing. */
  readonly sameAsDense: number | null;
  readonly answers: number;
}

/** Rounds of one cell by row; each round measured every row once, dense among them. */
export function figuresOf(cell: Cell, rounds: Readonly<Record<string, readonly Measured[]>>): Figure[] {
  const dense = rounds['dense']!;
  return Object.entries(rounds).map(([row, own]): Figure => {
    const sum = (read: (one: Measured) => number): number => own.reduce((total, one) => total + read(one), 0);
    const [drafted, accepted] = [sum((one) => one.drafted), sum((one) => one.accepted)];
    const comparable = cell.temperature === 0 && row !== 'lserve';
    return {
      ...cell, row,
      msPerToken: median(own.map(({ msPerToken }) => msPerToken)),
      tokensPerPass: sum(({ generated, texts }) => generated - texts.length) / sum(({ passes }) => passes),
      gain: median(own.map(({ msPerToken }, round) => dense[round]!.msPerToken / msPerToken)),
      acceptance: drafted === 0 ? null : accepted / drafted,
      levels: own.at(-1)!.levels,
      offReasons: [...new Set(own.flatMap(({ offReasons }) => offReasons))],
      sameAsDense: comparable ? sum((one) => one.texts.filter((text, i) => text === dense[own.indexOf(one)]!.texts[i]).length) : null,
      answers: sum(({ texts }) => texts.length),
    };
  });
}

function median(values: readonly number[]): number {
  return percentile(values.toSorted((a, b) => a - b), 50);
}

/** [rows][columns]: one line a drafter, three columns a workload. */
export function tableOf(figures: readonly Figure[]): string[][] {
  const rows = [...new Set(figures.map(({ row }) => row))];
  const workloads = WORKLOADS.filter((workload) => figures.some((figure) => figure.workload === workload));
  const head = ['', ...workloads.flatMap((workload) => [`${workload}: tokens/pass`, 'ms a token', 'gain'])];
  return [head, ...rows.map((row) => [row, ...workloads.flatMap((workload) => {
    const figure = figures.find((one) => one.row === row && one.workload === workload);
    return figure === undefined ? ['-', '-', '-'] : [figure.tokensPerPass.toFixed(2), figure.msPerToken.toFixed(1), `${figure.gain.toFixed(2)}${mark(figure)}`];
  })])];
}

/** A drafter that was off most of the time, and a greedy answer that differs. */
function mark({ offReasons, sameAsDense, answers }: Figure): string {
  return (offReasons.length > 0 ? ' off' : '') + (sameAsDense !== null && sameAsDense < answers ? ` (${answers - sameAsDense} differ)` : '');
}
