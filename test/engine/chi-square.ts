/** Whether counts were drawn from a distribution. Called by tests of sampling. */

/**
 * Pearson's statistic as standard deviations from its mean (Wilson and Hilferty's approximation): above 4 once in
 * 30,000 runs of a right sampler. Outcomes expected fewer than 5 times are counted together.
 */
export function chiSquareDeviation(counts: ArrayLike<number>, distribution: ArrayLike<number>): number {
  const total = Array.from(counts).reduce((sum, count) => sum + count, 0);
  const cells: { count: number; expected: number }[] = [];
  const rare = { count: 0, expected: 0 };
  for (let outcome = 0; outcome < distribution.length; outcome++) {
    const cell = { count: counts[outcome]!, expected: total * distribution[outcome]! };
    if (cell.expected === 0 && cell.count > 0) return Infinity;
    if (cell.expected >= 5) cells.push(cell);
    else [rare.count, rare.expected] = [rare.count + cell.count, rare.expected + cell.expected];
  }
  if (rare.expected > 0) cells.push({ ...rare, expected: Math.max(rare.expected, 1) });
  const degrees = cells.length - 1;
  if (degrees === 0) return 0;
  const statistic = cells.reduce((sum, { count, expected }) => sum + (count - expected) ** 2 / expected, 0);
  return (Math.cbrt(statistic / degrees) - (1 - 2 / (9 * degrees))) / Math.sqrt(2 / (9 * degrees));
}
