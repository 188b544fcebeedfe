/** Fixed-width tables for people. */

/** First column to the left, the others to the right. [rows][columns] */
export function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const align = (text: string, column: number): string => (column === 0 ? text.padEnd(widths[0]!) : text.padStart(widths[column]!));
  return rows.map((row) => row.map(align).join('  ')).join('\n');
}
