/**
 * RAPID's knowledge transfer (Chen et al., arXiv 2502.20330): the distribution that drafted tokens are accepted by is
 * drawn from the target's towards the drafter's. With eta above 0 the text no longer has the target's distribution,
 * and the answer says so. Pure. Called by verify.ts.
 */

/** Tokens that the drafter finds less likely than this share of its likeliest are left alone (the release's guard). */
const ALPHA = 0.1;

/** softmax(z + eta * (q - p)), where p = softmax(z), over the tokens that the drafter considers. p, q: [vocab] -> [vocab] */
export function shiftTowards(p: Float64Array, q: Float64Array, eta: number): Float64Array {
  const floor = ALPHA * q.reduce((most, probability) => Math.max(most, probability), 0);
  // Exponents are at most eta; the largest is taken off, so that none overflows.
  const exponents = p.map((probability, token) => (q[token]! >= floor ? eta * (q[token]! - probability) : 0));
  const largest = exponents.reduce((most, exponent, token) => (p[token]! > 0 ? Math.max(most, exponent) : most), -Infinity);
  const weights = p.map((probability, token) => (probability === 0 ? 0 : probability * Math.exp(exponents[token]! - largest)));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
