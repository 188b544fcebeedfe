/**
 * Where the tables of a run lie in their block: kernels/CONTRACT.md describes each. Knows no chunks. Called by run-tables.ts.
 */

/** Number of entries of each table, padding included. */
export interface TableSizes {
  readonly rows: number;
  readonly chunks: number;
  readonly lists: number;
  readonly writes: number;
  readonly units: number;
  readonly hopperUnits: number;
  readonly scoreUnits: number;
  /** How many of them, the last ones, are scored by Hopper's kernel. */
  readonly hopperScoreUnits: number;
  readonly outputRows: number;
  /** Rows of frequencies of their own (dynamic RoPE). */
  readonly frequencyRows: number;
}

/** Where each table begins in the block, in bytes. */
export type TableOffsets = Readonly<Record<TableName | 'end', number>>;
export type TableName = 'tokens' | 'positions' | 'frequencyRow' | 'chunks' | 'lists' | 'writes' | 'units' | 'hopperUnits' | 'scoreUnits' | 'outputRows' | 'classOf' | 'frequencies';

export const CHUNK_FIELDS = 16;
export const LIST_FIELDS = 8;
export const UNIT_FIELDS = 4;
const TABLE_ALIGNMENT = 16;

/** Offsets follow from the sizes alone: a recorded run finds its tables where they were. */
export function tableOffsets(sizes: TableSizes, { layers, kvHeads, pairs }: { readonly layers: number; readonly kvHeads: number; readonly pairs: number }): TableOffsets {
  const bytes: Readonly<Record<TableName, number>> = {
    tokens: 4 * sizes.rows, positions: 4 * sizes.rows, frequencyRow: sizes.frequencyRows === 0 ? 0 : 4 * sizes.rows,
    chunks: 4 * CHUNK_FIELDS * sizes.chunks, lists: 4 * LIST_FIELDS * sizes.lists, writes: 4 * UNIT_FIELDS * sizes.writes,
    units: 4 * UNIT_FIELDS * sizes.units, hopperUnits: 4 * UNIT_FIELDS * sizes.hopperUnits, scoreUnits: 4 * sizes.scoreUnits,
    outputRows: 4 * sizes.outputRows, classOf: sizes.chunks * layers * kvHeads, frequencies: 8 * pairs * sizes.frequencyRows,
  };
  let end = 0;
  const offsets: Partial<Record<TableName, number>> = {};
  for (const name of Object.keys(bytes) as TableName[]) {
    offsets[name] = end;
    end += Math.ceil(bytes[name] / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
  }
  return { ...offsets as Record<TableName, number>, end };
}
