/**
 * How much of an answer is right: values named in a text, and values that the model would have gone on with where a
 * right answer stands in the prompt. Pure. Called by run.ts.
 */

/** How many of `values` stand in the text. RULER scores so. */
export function namedIn(text: string, values: readonly string[]): number {
  return values.filter((value) => new RegExp(`(?<![\\p{L}\\p{N}])${value}(?![\\p{L}\\p{N}])`, 'u').test(text)).length;
}

/** A token of a right answer and the one that was most likely in its place. */
export interface PredictedToken {
  readonly text: string;
  readonly likeliest: string;
}

/**
 * How many values of the answer were predicted: every token that overlaps one has to be a token that goes on with a
 * value not named before it, in whatever order the model would have named them.
 */
export function predictedIn(answer: readonly PredictedToken[], values: readonly string[]): number {
  const text = answer.map((token) => token.text).join('');
  const starts = answer.map(((at) => (token: PredictedToken) => (at += token.text.length) - token.text.length)(0));
  const found = values.map((value) => ({ value, start: text.indexOf(value) })).sort((a, b) => a.start - b.start);
  const missing = found.find(({ start }) => start === -1);
  if (missing !== undefined) throw new Error(`the answer in the prompt does not hold ${missing.value}`);
  return found.filter(({ value, start }, i) => {
    const remaining = found.slice(i).map((one) => one.value);
    return answer.every((token, t) => {
      const from = starts[t]!;
      if (from + token.text.length <= start || from >= start + value.length) return true;
      // What the most likely token would have made of the value. A token may begin before it, with a space.
      const lead = token.text.slice(0, Math.max(0, start - from));
      const made = token.likeliest.startsWith(lead) ? text.slice(start, Math.max(start, from)) + token.likeliest.slice(lead.length) : '';
      return made !== '' && remaining.some((other) => other.startsWith(made) || made.startsWith(other));
    });
  }).length;
}
