/** Texts on which tokenizers usually differ, and a generator of more. For the differential tests. */
import fc from 'fast-check';

export const ODD_TEXTS: readonly string[] = [
  '', ' ', '  ', '\n', '\r\n', '\t \n  \r\n\r\n x', 'a', 'Hello, world!', ' leading', 'trailing   ', 'a  b   c    d',
  "I'm you're IT'S we'Ve DON'T they'LL he'd 'tis o'clock", "it'ſ 's'S", '0 12 345 6789 1234567890 ٣٤٥ ½ ²', '日本語のテキスト。中文,한국어', 'Ünïcödé naïve café',
  'e\u0301 a\u0308 n\u0303 o\u0302\u0323 \u1e9b\u0323', '😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽', 'नमस्ते दुनिया', 'مرحبا بالعالم', '𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u{10ffff}', '\u0000\u0001\u007f',
  'for (let i = 0; i < n; i++) {\n\treturn x[i] ** 2; // ok\n}\n', 'https://example.org/a?b=c&d=%20#x', '!!!???...,,,;;;', '---\n***\n```js\n```', 'a\u00a0b\u2003c\u3000d\u2028e\u2029f',
  '<|im_start|>user\nhi<|im_end|>\n', '<|im_end|><|im_end|>', '<|im_end', '<|im_<|im_end|>end|>', ' <think> a</think>', 'x'.repeat(300), 'ab'.repeat(200), ' '.repeat(200), '\n'.repeat(100), '漢字'.repeat(150),
];

/** Words, white space, marks and any characters, mixed; without what the library takes for white space and Unicode does not, or the reverse. */
export const oddText = fc.array(fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 12 }),
  fc.string({ unit: 'binary', maxLength: 6 }),
  fc.constantFrom(' ', '  ', '\n', '\r\n', '\t', "'s", "'LL", 'the', ' and', ' lazy', '123', '4567', '日本', '😀', '\u0301', '<think>', '<|im_end|>', '<|im_', '.\n\n', '({['),
), { maxLength: 20 }).map((parts) => parts.join('').replace(/[\ufeff\u0085ſ\u212a]/g, ''));
