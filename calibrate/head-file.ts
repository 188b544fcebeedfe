/**
 * From what was measured to the head file: its contents, and where it is written. engine/model/head-file.ts
 * reads it and says where it looks. Knows no engine. Called by main.ts.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** [layer, head within the layer] */
type HeadName = readonly [number, number];

/** JSON; readers need `order` alone, people the rest. Arrays beside `order` follow it. */
export interface HeadFile {
  readonly method: string;
  readonly data: string;
  /** Prompt tokens, about. */
  readonly lengths: readonly number[];
  /** Most streaming-like first. [layers * kvHeads] */
  readonly order: readonly HeadName[];
  /** Mean over the lengths. [layers * kvHeads] */
  readonly mass: readonly number[];
  /** [lengths][layers * kvHeads] */
  readonly massAtLength: readonly (readonly number[])[];
}

export interface MeasuredHeads {
  readonly kvHeads: number;
  readonly lengths: readonly number[];
  /** By length, then [layers * kvHeads]. */
  readonly mass: readonly Float64Array[];
}

/** Rounded before ordering, so that the last bits of a sum cannot decide; equal heads stay in the model's order. */
const DIGITS = 4;

export function describeHeads({ kvHeads, lengths, mass }: MeasuredHeads, { method, data }: Pick<HeadFile, 'method' | 'data'>): HeadFile {
  const means = mass[0]!.map((_, head) => rounded(mass.reduce((sum, atLength) => sum + atLength[head]!, 0) / mass.length));
  const heads = [...means.keys()].sort((a, b) => means[a]! - means[b]! || a - b);
  return {
    method, data, lengths,
    order: heads.map((head) => [Math.floor(head / kvHeads), head % kvHeads]),
    mass: heads.map((head) => means[head]!),
    massAtLength: mass.map((atLength) => heads.map((head) => rounded(atLength[head]!))),
  };
}

/** JSON with one line for each list. */
export function formatHeadFile(file: HeadFile): string {
  const lines = Object.entries(file).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value).replaceAll(/,(?=[[\d])/g, ', ')}`);
  return `{\n${lines.join(',\n')}\n}\n`;
}

/** Writes to the first place that can be written to and returns it; a place of the user's own is the only one tried. */
export async function writeHeadFile(text: string, places: readonly string[]): Promise<string> {
  const [place, ...others] = places;
  if (place === undefined) throw new RangeError('no place to write the head file to');
  try {
    if (others.length === 0) await mkdir(dirname(place), { recursive: true });
    await writeFile(place, text);
    return place;
  } catch (error) {
    if (others.length === 0 || !isReadOnly(error)) throw error;
    return writeHeadFile(text, others);
  }
}

function isReadOnly(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ['EACCES', 'EPERM', 'EROFS'].includes(String(error.code));
}

function rounded(share: number): number {
  return Number(share.toFixed(DIGITS));
}
