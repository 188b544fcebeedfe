// Expected pieces are those of the Rust implementation (tokenizers 0.23.2 for Python, Split with 'isolated').
import { expect, test } from 'vitest';
import { GPT2_PATTERN, literalPattern, translatePattern } from '../../tokenizer/split-pattern.ts';

test.each([
  ['the long s and the Kelvin sign fold onto letters in (?i:...)', String.raw`(?i:'s|'t|'k)`, "a'ſb'\u212ac'K d'Sx", ['a', "'ſ", 'b', "'\u212a", 'c', "'K", ' d', "'S", 'x']],
  ['a class within (?i:...) folds too', String.raw`'(?i:[sdmt]|ll|ve|re)`, "a'Sb'ſc'LL", ['a', "'S", 'b', "'ſ", 'c', "'LL"]],
  ['case is folded up to the end of the group only', "(?i:'s)x", "'Sx'sX", ["'Sx", "'sX"]],
  ['white space is what Unicode says', String.raw`\s+`, 'a\u0085b\ufeffc\u200bd\u180ee', ['a', '\u0085', 'b\ufeffc\u200bd\u180ee']],
  ['a possessive quantifier gives nothing back', 'a?+ab|[^a]|a', 'ab aab', ['a', 'b', ' ', 'aab']],
  ['an interval followed by a plus is repeated', String.raw`\p{N}{1,3}+`, '123456789 12', ['123456789', ' ', '12']],
  ['an interval takes as many as it may', String.raw`\p{N}{1,3}`, '123456789 12', ['123', '456', '789', ' ', '12']],
  ['a script is a property', String.raw`\p{Han}+`, 'ab漢字c', ['ab', '漢字', 'c']],
  ['escapes that JavaScript forbids are unescaped', String.raw`\"\'[\-\/]`, `a"'-"'/`, ['a', `"'-`, `"'/`]],
])('%s', (_name, source, text, pieces) => {
  expect(piecesOf(translatePattern(source)!, text)).toEqual(pieces);
});

test.each([String.raw`\bword`, String.raw`[a-z&&[aeiou]]`, '^a', '(?<name>a)', '(?i)a', String.raw`(a)\1`, '(?i:[a-z])', '(a', 'a)', '.'])(
  'refuses %s, which it cannot translate', (source) => {
    expect(translatePattern(source)).toBeNull();
  },
);

test('the pattern of GPT-2 keeps every character', () => {
  const text = "It's  a test:\r\n 12\t日本 x́";
  expect(text.match(translatePattern(GPT2_PATTERN)!)!.join('')).toBe(text);
});

test('a literal pattern matches its own text only', () => {
  expect(piecesOf(literalPattern('a.b'), 'a.b axb')).toEqual(['a.b', ' axb']);
});

/** The matches and what lies between them. */
function piecesOf(pattern: RegExp, text: string): string[] {
  let end = 0;
  const pieces: string[] = [];
  for (const match of text.matchAll(pattern)) {
    pieces.push(text.slice(end, match.index), match[0]);
    end = match.index + match[0].length;
  }
  return [...pieces, text.slice(end)].filter((piece) => piece !== '');
}
