import { describe, expect, it } from 'vitest';
import { namedIn, predictedIn, type PredictedToken } from '../../../loadtest/eval/score.ts';

describe('namedIn', () => {
  it('counts the values that stand in a text, each as a whole', () => {
    expect(namedIn('It is 7654321, and 1234567.', ['7654321', '1234567', '1111111'])).toBe(2);
    expect(namedIn('It is 76543210 or x7654321.', ['7654321'])).toBe(0);
    expect(namedIn('ABCDE FGHIJ', ['FGHIJ', 'ABCDE', 'KLMNO'])).toBe(2);
  });
});

/** 'token' was predicted as it stands, 'token>other' as the other. */
function tokens(...written: string[]): PredictedToken[] {
  return written.map((one) => {
    const [text, likeliest = text] = one.split('>');
    return { text: text!, likeliest: likeliest! };
  });
}

describe('predictedIn', () => {
  it('asks for every token of a value, and for none of the words around it', () => {
    expect(predictedIn(tokens('It>The', ' is', ' ', '7', '65', '4321', '.>!'), ['7654321'])).toBe(1);
    for (const wrong of [3, 4, 5]) {
      const answer = tokens('It', ' is', ' ', '7', '65', '4321', '.').map((token, i) => (i === wrong ? { ...token, likeliest: '8' } : token));
      expect(predictedIn(answer, ['7654321'])).toBe(0);
    }
  });

  it('looks behind the space that a token begins with, and ahead of what one goes on with', () => {
    expect(predictedIn(tokens('are', ' horse', ',', ' dog', '.'), ['horse', 'dog'])).toBe(2);
    expect(predictedIn(tokens('are', ' horse>horse', ',', ' dog', '.'), ['horse', 'dog'])).toBe(1);
    expect(predictedIn(tokens('is ', '4321', '!'), ['4321'])).toBe(1);
    expect(predictedIn(tokens('is ', '4321.>4321,'), ['4321'])).toBe(1);
  });

  it('takes values in any order, but none twice', () => {
    expect(predictedIn(tokens('A', 'B>C', ' ', 'C', 'D'), ['AB', 'CD'])).toBe(1);
    expect(predictedIn(tokens('AB>CD', ' ', 'CD'), ['AB', 'CD'])).toBe(2);
    expect(predictedIn(tokens('AB', ' ', 'CD>AB'), ['AB', 'CD'])).toBe(1);
  });

  it('throws when the answer does not hold a value', () => {
    expect(() => predictedIn(tokens('A', 'B'), ['AC'])).toThrow('AC');
  });
});
