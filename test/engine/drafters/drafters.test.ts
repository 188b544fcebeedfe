// Every drafter through the cases, and what is each one's own.
import { describe, expect, test } from 'vitest';
import { createDrafter, type DrafterSettings } from '../../../engine/drafters/create.ts';
import { NgramIndex } from '../../../engine/drafters/ngram-index.ts';
import { SeededRandom } from '../../seeded-random.ts';
import { drafterCases } from './drafter.cases.ts';

const kinds: [string, DrafterSettings, boolean][] = [
  ['n-grams', { speculation: 'ngram', draftBudget: 320, draftLevel: 'auto' }, false],
  ['middle level alone', { speculation: 'triforce', draftBudget: 320, draftLevel: 'none' }, true],
  ['middle level over n-grams', { speculation: 'triforce', draftBudget: 320, draftLevel: 'ngram' }, true],
  ['middle level over a model', { speculation: 'triforce', draftBudget: 320, draftLevel: 'model' }, true],
  ['rapid with a draft model', { speculation: 'rapid', draftBudget: 320, draftLevel: 'auto' }, true],
];
for (const [name, settings, alwaysDrafts] of kinds) {
  drafterCases(name, { alwaysDrafts, create: (bench) => createDrafter(settings, { ...bench, mayBegin: () => true }) });
}
drafterCases('rapid with the target itself', {
  alwaysDrafts: true,
  create: ({ target }) => createDrafter({ speculation: 'rapid', draftBudget: 320, draftLevel: 'auto' }, { target, draftModel: null, mayBegin: () => true }),
});

describe('the index of n-grams', () => {
  /** The definition: every earlier place, the longest agreement, the latest of equals. */
  const plain = (text: Int32Array): number | null => {
    let best: number | null = null;
    let longest = 2;
    for (let place = text.length - 1; place >= 3; place--) {
      let match = 0;
      while (match < 32 && match < place && text[place - 1 - match] === text[text.length - 1 - match]) match++;
      if (match > longest) [best, longest] = [place, match];
    }
    return best;
  };

  test('finds what a search of the whole text finds, as the text grows', () => {
    const random = new SeededRandom(1);
    const index = new NgramIndex();
    let text = Int32Array.from({ length: 300 }, () => random.below(4));
    for (let step = 0; step < 200; step++) {
      index.extend(text, text.length);
      // Chains are cut after 64 places: with four letters only the longest match among the latest is promised.
      const found = index.find(text);
      const wanted = plain(text.subarray(Math.max(0, text.length - 100)));
      expect(found === null).toBe(plain(text) === null);
      if (wanted !== null) expect(found).not.toBeNull();
      text = Int32Array.from([...text, random.below(4)]);
    }
  });

  test('finds the longest of all places where there are few', () => {
    const random = new SeededRandom(2);
    const index = new NgramIndex();
    let text = Int32Array.from({ length: 3000 }, () => random.below(30));
    for (let step = 0; step < 100; step++) {
      const from = random.below(text.length - 50);
      text = Int32Array.from([...text, ...text.subarray(from, from + 1 + random.below(20))]);
      index.extend(text, text.length);
      expect(index.find(text)).toBe(plain(text));
    }
  });

  test('of a million tokens is built quickly and asked quickly: by the text, not by its square', () => {
    const random = new SeededRandom(3);
    const text = Int32Array.from({ length: 1_000_000 }, () => random.below(200));
    const index = new NgramIndex();
    let began = performance.now();
    index.extend(text, text.length);
    expect(performance.now() - began).toBeLessThan(5000);
    began = performance.now();
    for (let i = 0; i < 1000; i++) index.find(text.subarray(0, text.length - i));
    expect((performance.now() - began) / 1000).toBeLessThan(1);
  });
});
