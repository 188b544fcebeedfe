/**
 * From what was measured to the head file: its contents, and where it is written. engine/model/head-file.ts
 * reads it and says where it looks. Knows no engine. Called by main.ts.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { rankByMass, rounded } from './attention-mass.ts';
import type { Measurement } from './measure.ts';

/** [layer, head within the layer] */
type HeadName = readonly [number, number];

/** JSON; readers need `order` alone, people the rest. Arrays beside `order` follow it. */
export interface HeadFile {
  readonly method: string;
  readonly data: string;
  /** Tokens of the documents, about. */
  readonly lengths: readonly number[];
  /** Most streaming-like first. [layers * kvHeads] */
  readonly order: readonly HeadName[];
  /** Nats that a right answer loses when this head and all before it stream; null: not measured. [layers * kvHeads] */
  readonly harm?: readonly (number | null)[];
  /** Mean over the lengths. [layers * kvHeads] */
  readonly mass: readonly number[];
  /** [lengths][layers * kvHeads] */
  readonly massAtLength: readonly (readonly number[])[];
}

/** In the order that was chosen, or where none was in that of the masses. */
export function describeHeads({ kvHeads, lengths, mass, chosen }: Measurement, { method, data }: Pick<HeadFile, 'method' | 'data'>): HeadFile {
  const { ranked, means } = rankByMass(mass);
  const heads = chosen?.order ?? ranked;
  return {
    method, data, lengths,
    order: heads.map((head) => [Math.floor(head / kvHeads), head % kvHeads]),
    ...(chosen !== null && { harm: chosen.harm.map((harm) => (harm === null ? null : rounded(harm))) }),
    mass: heads.map((head) => means[head]!),
    massAtLength: mass.map((atLength) => heads.map((head) => rounded(atLength[head]!))),
  };
}

/** JSON with one line for each list. */
export function formatHeadFile(file: HeadFile): string {
  const lines = Object.entries(file).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value).replaceAll(/,(?=[[\dn])/g, ', ')}`);
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
