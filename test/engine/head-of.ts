/**
 * The head of a row by its definition, with sorting, in doubles: what engines that give heads are held to. Called by tests.
 */
import { HEAD_TOKENS, type RowHead } from '../../engine/logit-row.ts';

export function headOf(row: Float32Array, temperature: number, whole: () => Float32Array = () => row): RowHead {
  const order = [...row.keys()].toSorted((a, b) => row[b]! - row[a]! || a - b);
  const tokens = Int32Array.from(order.slice(0, HEAD_TOKENS));
  const largest = row[order[0]!]!;
  const restAt = (t: number): number => order.slice(HEAD_TOKENS).reduce((sum, token) => sum + Math.exp((row[token]! - largest) / t), 0);
  return {
    tokens, logits: Float32Array.from(tokens, (token) => row[token]!), vocab: row.length,
    rest: restAt(1), restAtTemperature: restAt(temperature || 1), target: null, whole,
  };
}
