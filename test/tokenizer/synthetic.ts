/**
 * Small tokenizer.json variants for tests: a BPE trained here on a few sentences, dressed as GPT-2, Llama 3, Qwen2
 * and others, and a SentencePiece-like one. Knows no encoder.
 */
import type { Component, TokenizerJson } from '../../tokenizer/model-files.ts';
import { CHARACTER_OF_BYTE } from '../../tokenizer/byte-alphabet.ts';

const SAMPLE = `the quick brown fox jumps over the lazy dog, and then they'll say it's what we've done: "don't stop", he said.
Numbers 123 4567 2024, code: for (let i = 0; i < n; i++) { return x[i] + 1; }  Äpfel über Straße, naïve café, señor. 日本語のテキスト 中文 한국어 😀👩‍👩‍👧
HELLO World, THE THEN   spaces\tand\ttabs\n\n\nlines\r\n`.repeat(3);

export const LLAMA3_REGEX = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
export const QWEN2_REGEX = LLAMA3_REGEX.replace('{1,3}', '');

export const SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'] as const;

const split = (regex: string): Component => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false });
const byteLevel = (options: object): Component => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, ...options });
const sequence = (...pretokenizers: Component[]): Component => ({ type: 'Sequence', pretokenizers });

/** By name: pre-tokenizer, and what else differs. */
export const VARIANTS: Readonly<Record<string, Partial<TokenizerJson> & { readonly ignoreMerges?: boolean }>> = {
  'GPT-2': { pre_tokenizer: byteLevel({ use_regex: true }) },
  'GPT-2 with a prefix space': { pre_tokenizer: byteLevel({ use_regex: true, add_prefix_space: true }) },
  'Llama 3 with ignore_merges': { pre_tokenizer: sequence(split(LLAMA3_REGEX), byteLevel({ use_regex: false })), ignoreMerges: true },
  'Qwen2 with NFC': { pre_tokenizer: sequence(split(QWEN2_REGEX), byteLevel({ use_regex: false })), normalizer: { type: 'NFC' } },
  'digits first': { pre_tokenizer: sequence({ type: 'Digits', individual_digits: true }, byteLevel({ use_regex: true })) },
  'kept matches': {
    pre_tokenizer: sequence({ ...split(QWEN2_REGEX), behavior: 'Removed', invert: true }, byteLevel({ use_regex: false })),
  },
  'no split at all': { pre_tokenizer: byteLevel({ use_regex: false }) },
};

export function byteLevelJson(name: string): TokenizerJson {
  const { ignoreMerges, ...variant } = VARIANTS[name]!;
  const { vocab, merges } = trainBpe(Buffer.from(SAMPLE), 150);
  const specials = SPECIALS.map((content, i) => ({ id: Object.keys(vocab).length + i, content, special: true, normalized: false }));
  const think = { id: Object.keys(vocab).length + SPECIALS.length, content: '<think>', special: false, normalized: false };
  // A word that no merges lead to: only ignore_merges finds it.
  const whole = ignoreMerges === true ? { Ġlazy: think.id + 1 } : {};
  return {
    added_tokens: [...specials, think], normalizer: null, post_processor: null, decoder: { type: 'ByteLevel' }, ...variant,
    model: { type: 'BPE', vocab: { ...vocab, ...whole }, merges, ignore_merges: ignoreMerges ?? false },
  };
}

/** SentencePiece-like, as Llama 2's: spaces as ▁, byte fallback. `prefix`: normalizer of old files or Metaspace of new ones. */
export function metaspaceJson(prefix: 'normalizer' | 'first'): TokenizerJson {
  const tokens = ['<unk>', '<s>', '</s>', ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
    '▁', ...Array.from('abcdefghijklmnopqrstuvwxyz[]/INSTH,.é'), '▁h', '▁t', 'el', 'lo', '▁hel', '▁hello', 'th', '▁th', '▁the', 'he'];
  const merges: [string, string][] = [['▁', 'h'], ['▁', 't'], ['e', 'l'], ['l', 'o'], ['▁h', 'el'], ['▁hel', 'lo'], ['t', 'h'], ['▁t', 'h'], ['▁th', 'e'], ['h', 'e']];
  const added = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true, normalized: false }));
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const dialect: Partial<TokenizerJson> = prefix === 'normalizer'
    ? { normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, replace] }, pre_tokenizer: null }
    : { normalizer: null, pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false } };
  return {
    added_tokens: added, ...dialect,
    post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }], special_tokens: {} },
    decoder: { type: 'Sequence', decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ] },
    model: {
      type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges, byte_fallback: true,
      ...{ unk_token: '<unk>', fuse_unk: true },
    },
  };
}

/** The plainest BPE training there is: the most frequent pair of neighbours, again and again, over the words of a text. */
function trainBpe(sample: Buffer, numMerges: number): { vocab: Record<string, number>; merges: string[] } {
  const words = sample.toString().split(/(?= )/).map((word) => [...Buffer.from(word)].map((byte) => CHARACTER_OF_BYTE[byte]!));
  const vocab: Record<string, number> = Object.fromEntries(CHARACTER_OF_BYTE.map((char, id) => [char, id]));
  const merges: string[] = [];
  while (merges.length < numMerges) {
    const counts = new Map<string, number>();
    for (const word of words) word.slice(1).forEach((right, i) => counts.set(`${word[i]!} ${right}`, (counts.get(`${word[i]!} ${right}`) ?? 0) + 1));
    const [best] = [...counts].reduce((top, entry) => (entry[1] > top[1] ? entry : top));
    const [left, right] = best.split(' ') as [string, string];
    merges.push(best);
    vocab[left + right] ??= Object.keys(vocab).length;
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
    }
  }
  return { vocab, merges };
}
