// Every drafter through the cases, and what is each one's own.
import { describe, expect, test } from 'vitest';
import { createDrafter, type DrafterSettings } from '../../../engine/drafters/create.ts';
import type { Draft } from '../../../engine/drafters/drafter.ts';
import { NgramDrafter } from '../../../engine/drafters/ngram-drafter.ts';
import { MAX_MATCH, NgramIndex, type Place } from '../../../engine/drafters/ngram-index.ts';
import { SeededRandom } from '../../seeded-random.ts';
import { drafterCases, type DrafterBench } from './drafter.cases.ts';

const kinds: [string, DrafterSettings, boolean, keyof DrafterBench | null][] = [
  ['n-grams', { speculation: 'ngram', draftBudget: 320, draftLevel: 'auto' }, false, null],
  ['middle level alone', { speculation: 'triforce', draftBudget: 320, draftLevel: 'none' }, true, null],
  ['middle level over n-grams', { speculation: 'triforce', draftBudget: 320, draftLevel: 'ngram' }, true, null],
  ['middle level over a model', { speculation: 'triforce', draftBudget: 320, draftLevel: 'model' }, true, 'draftModel'],
  ['rapid with a draft model', { speculation: 'rapid', draftBudget: 320, draftLevel: 'auto' }, true, 'draftModel'],
  ['rapid with the target itself beside a draft model', { speculation: 'rapid', draftBudget: 320, draftLevel: 'none' }, true, 'target'],
];
for (const [name, settings, alwaysDrafts, takesFrom] of kinds) {
  drafterCases(name, { alwaysDrafts, takesFrom, mustRead: settings.speculation === 'rapid', create: (bench) => createDrafter(settings, { ...bench, mayBegin: () => true, now: () => performance.now() }) });
}
drafterCases('rapid with the target itself', {
  alwaysDrafts: true, takesFrom: 'target', mustRead: true,
  create: ({ target }) => createDrafter({ speculation: 'rapid', draftBudget: 320, draftLevel: 'auto' }, { target, draftModel: null, mayBegin: () => true, now: () => performance.now() }),
});

/** The definition: every earlier place that agrees in `gram` tokens or more, latest first. */
function plainPlaces(text: Int32Array, gram: number): Place[] {
  const places: Place[] = [];
  for (let end = text.length - 1; end >= gram; end--) {
    let match = 0;
    while (match < MAX_MATCH && match < end && text[end - 1 - match] === text[text.length - 1 - match]) match++;
    if (match >= gram) places.push({ end, match });
  }
  return places;
}

describe.each([3, 8])('the index of n-grams of %i', (gram) => {
  test('finds what a search of the whole text finds, as the text grows', () => {
    const random = new SeededRandom(2);
    const index = new NgramIndex(gram);
    let text = Int32Array.from({ length: 3000 }, () => random.below(30));
    for (let step = 0; step < 100; step++) {
      const from = random.below(text.length - 50);
      text = Int32Array.from([...text, ...text.subarray(from, from + 1 + random.below(20))]);
      index.extend(text, text.length);
      expect(index.places(text)).toEqual(plainPlaces(text, gram));
    }
  });

  test('of many places finds the latest', () => {
    const random = new SeededRandom(1);
    const index = new NgramIndex(gram);
    const text = Int32Array.from({ length: 8000 }, (_, i) => (i % 12 < 9 ? i % 12 : random.below(3)));
    for (let length = 7000; length < 7100; length++) {
      index.extend(text, length);
      const [found, wanted] = [index.places(text.subarray(0, length)), plainPlaces(text.subarray(0, length), gram)];
      expect(found).toEqual(wanted.slice(0, found.length));
      // Not all of the places that are looked at need agree: other grams may share their slot.
      expect(found.length).toBeGreaterThanOrEqual(Math.min(wanted.length, 32));
    }
  });

  test('of a million tokens is built quickly and asked quickly: by the text, not by its square', () => {
    const random = new SeededRandom(3);
    const text = Int32Array.from({ length: 1_000_000 }, () => random.below(200));
    const index = new NgramIndex(gram);
    let began = performance.now();
    index.extend(text, text.length);
    expect(performance.now() - began).toBeLessThan(5000);
    began = performance.now();
    for (let i = 0; i < 1000; i++) index.places(text.subarray(0, text.length - i));
    expect((performance.now() - began) / 1000).toBeLessThan(1);
  });
});

describe('n-grams', () => {
  const foresee = (tokens: readonly number[], maxTokens = 4): Draft => new NgramDrafter().foresee({
    sequenceId: 1, text: Int32Array.from(tokens), finalTokens: tokens.length, promptTokens: tokens.length, maxTokens, draftPrompt: new Int32Array(0),
  });
  const belief = ({ classes }: Draft): number[] => Array.from(classes, (sureness) => new NgramDrafter().firstAcceptances[sureness]!);

  test('follow the place that agrees longest, though a later one agrees too', () => {
    expect([...foresee([1, 2, 3, 4, 5, 60, 61, 62, 63, 9, 3, 4, 5, 70, 71, 72, 73, 8, 1, 2, 3, 4, 5]).tokens]).toEqual([60, 61, 62, 63]);
  });

  test('follow the majority of the places that agree as long, the latest of equals', () => {
    const [a, b] = [[3, 4, 5, 60, 61], [3, 4, 5, 70, 71]];
    expect([...foresee([0, ...a, 1, ...a, 2, ...b, 9, 3, 4, 5], 2).tokens]).toEqual([60, 61]);
    expect([...foresee([0, ...a, 2, ...b, 9, 3, 4, 5], 2).tokens]).toEqual([70, 71]);
  });

  test('find a long agreement behind a hundred short ones that are later', () => {
    const long = [11, 12, 13, 14, 15, 16, 3, 4, 5];
    const short = Array.from({ length: 100 }, (_, i) => [3, 4, 5, 200 + i]).flat();
    expect([...foresee([...long, 60, 61, 62, 63, ...short, ...long]).tokens]).toEqual([60, 61, 62, 63]);
  });

  test('are surer the longer the words agree, of each token more than of the one before, and less where the places differ', () => {
    const sure = belief(foresee([1, 2, 3, 4, 5, 6, 60, 61, 62, 63, 9, 3, 4, 5, 6]));
    expect(sure).toEqual(sure.toSorted((a, b) => a - b));
    expect(belief(foresee([1, 2, 3, 4, 5, 6, 60, 61, 62, 63, 9, 1, 2, 3, 4, 5, 6]))[0]).toBeGreaterThan(sure[0]!);
    expect(belief(foresee([7, 3, 4, 5, 6, 60, 61, 62, 63, 8, 3, 4, 5, 6, 70, 9, 3, 4, 5, 6]))[0]).toBeLessThan(sure[0]!);
  });

  test('go on with what they proposed where the text ends: a repetition', () => {
    expect([...foresee([9, 1, 2, 3, 1, 2, 3, 1, 2, 3], 7).tokens]).toEqual([1, 2, 3, 1, 2, 3, 1]);
  });
});
