import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopStrings } from '../../tokenizer/stop-strings.ts';

/** All the text that comes out when the pieces go in. */
function run(stops: readonly string[], pieces: readonly string[], includeStop = false): { text: string; stopped: string | null } {
  const watch = new StopStrings(stops, { includeStop });
  let text = '';
  for (const piece of pieces) {
    const step = watch.push(piece);
    text += step.text;
    if (step.stopped !== null) return { text, stopped: step.stopped };
  }
  return { text: text + watch.flush(), stopped: null };
}

describe('stop strings', () => {
  test('end the text before them', () => {
    expect(run(['END'], ['some EN', 'D more'])).toEqual({ text: 'some ', stopped: 'END' });
  });

  test('are part of the text on request', () => {
    expect(run(['END'], ['some E', 'N', 'D more'], true)).toEqual({ text: 'some END', stopped: 'END' });
  });

  test('hold back only what may be their start', () => {
    const watch = new StopStrings(['\n\nUser:'], { includeStop: false });
    expect(watch.push('one\n')).toEqual({ text: 'one', stopped: null });
    expect(watch.push('two\n\nUs')).toEqual({ text: '\ntwo', stopped: null });
    expect(watch.push('eful')).toEqual({ text: '\n\nUseful', stopped: null });
    expect(watch.flush()).toBe('');
  });

  test('give out at the end what was held back', () => {
    expect(run(['abc'], ['xab'])).toEqual({ text: 'xab', stopped: null });
  });

  test('say nothing more after they were met', () => {
    const watch = new StopStrings(['.'], { includeStop: false });
    watch.push('a.b');
    expect([watch.push('c').text, watch.flush()]).toEqual(['', '']);
  });

  test('that are empty are no stop strings', () => {
    expect(run([''], ['abc'])).toEqual({ text: 'abc', stopped: null });
  });

  test('of two that end together name the longer', () => {
    expect(run(['b', 'ab'], ['xa', 'b'])).toEqual({ text: 'x', stopped: 'ab' });
  });

  test('do the same however the text is cut, and never lose a character', () => {
    const chars = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 20 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 }), { maxLength: 3 });
    fc.assert(fc.property(chars, stops, fc.array(fc.nat(20)), fc.boolean(), (text, list, cuts, includeStop) => {
      const edges = [0, ...cuts.map((cut) => Math.min(cut, text.length)).sort((a, b) => a - b), text.length];
      const pieces = edges.slice(1).map((edge, i) => text.slice(edges[i], edge));
      const cut = run(list, pieces, includeStop);
      expect(cut).toEqual(run(list, Array.from(text), includeStop));
      expect(cut).toEqual(plainly(list, text, includeStop));
    }), { numRuns: 2000 });
  });
});

/** The slow twin: after each character, does the text end with a stop string? */
function plainly(stops: readonly string[], text: string, includeStop: boolean): { text: string; stopped: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const met = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (met !== undefined) return { text: text.slice(0, includeStop ? end : end - met.length), stopped: met };
  }
  return { text, stopped: null };
}
