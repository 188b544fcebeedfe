/**
 * The hot path: byte-level BPE as in GPT-2, Llama 3, Qwen and the bundled model. Splits text into words by the
 * tokenizer's pattern and merges each word's bytes by rank, remembering short words. Knows no added tokens and no
 * special ones. tokenizer.ts builds it where it can do what tokenizer.json asks, else the library does.
 */
import { CHARACTER_OF_BYTE } from './byte-alphabet.ts';
import { mergeSymbols } from './bpe-merge.ts';
import { MergeTable } from './merge-table.ts';
import { type Component, type TokenizerJson } from './model-files.ts';
import type { IdBuffer, SectionEncoder } from './section-encoder.ts';
import { GPT2_PATTERN, literalPattern, translatePattern } from './split-pattern.ts';
import { flatten, type Vocabulary } from './vocabulary.ts';
import { MAX_CACHED_CHARS, WordCache } from './word-cache.ts';

/** One pre-tokenizer step: pieces that match, and what lies between them unless it is dropped. */
class Splitter {
  readonly keepsGaps: boolean;
  /** Where the match that startOfMatch found ends. */
  endOfMatch = 0;
  readonly #sticky: RegExp;
  readonly #global: RegExp;

  constructor(pattern: RegExp, keepsGaps: boolean) {
    this.#sticky = new RegExp(pattern.source, 'yu');
    this.#global = pattern;
    this.keepsGaps = keepsGaps;
  }

  startOfMatch(text: string, from: number): number {
    // Nearly every match starts where the last one ended, and test() makes no match object.
    this.#sticky.lastIndex = from;
    if (this.#sticky.test(text) && this.#sticky.lastIndex > from) {
      this.endOfMatch = this.#sticky.lastIndex;
      return from;
    }
    return this.#search(text, from);
  }

  #search(text: string, from: number): number {
    this.#global.lastIndex = from;
    for (let match = this.#global.exec(text); match !== null; match = this.#global.exec(text)) {
      this.endOfMatch = this.#global.lastIndex;
      if (match[0] !== '') return match.index;
      this.#global.lastIndex += (text.codePointAt(match.index) ?? 0) > 0xffff ? 2 : 1;
    }
    this.endOfMatch = text.length;
    return text.length;
  }
}

interface Plan {
  readonly forms: readonly string[];
  readonly splitters: readonly Splitter[];
  readonly prefixSpace: boolean;
  readonly ignoreMerges: boolean;
  /** The token of each byte. [256] */
  readonly byteIds: Int32Array;
  readonly merges: MergeTable;
}

export class ByteLevelBpe implements SectionEncoder {
  readonly bytesPerSecond = 8e6;
  readonly #plan: Plan;
  readonly #vocabulary: Vocabulary;
  readonly #words = new WordCache();
  readonly #utf8 = new TextEncoder();
  /** The bytes and the ids of a short word. */
  readonly #bytes = new Uint8Array(3 * MAX_CACHED_CHARS);
  readonly #scratch = new Int32Array(3 * MAX_CACHED_CHARS);

  private constructor(plan: Plan, vocabulary: Vocabulary) {
    this.#plan = plan;
    this.#vocabulary = vocabulary;
  }

  /** null when this tokenizer.json is not byte-level BPE of a kind known here. Throws Error for merges of unknown tokens. */
  static from(json: TokenizerJson, vocabulary: Vocabulary): ByteLevelBpe | null {
    const forms = unicodeForms(json.normalizer);
    const stages = splitStages(json.pre_tokenizer);
    const byteIds = CHARACTER_OF_BYTE.map((char) => vocabulary.idOf(char));
    if (forms === null || stages === null || !isPlainBpe(json)) return null;
    if (byteIds.includes(null)) return null;
    return new ByteLevelBpe({
      forms, ...stages, ignoreMerges: json.model.ignore_merges === true,
      byteIds: Int32Array.from(byteIds, Number), merges: mergeTable(json.model.merges ?? [], vocabulary),
    }, vocabulary);
  }

  normalize(text: string): string {
    return this.#plan.forms.reduce((normal, form) => normal.normalize(form), text);
  }

  encode(text: string, _first: boolean, out: IdBuffer): void {
    if (text === '') return;
    const needsSpace = this.#plan.prefixSpace && !text.startsWith(' ');
    this.#split(needsSpace ? ` ${text}` : text, 0, out);
  }

  #split(text: string, stage: number, out: IdBuffer): void {
    const splitter = this.#plan.splitters[stage];
    if (splitter === undefined) {
      this.#encodeWord(text, out);
      return;
    }
    for (let end = 0; end < text.length; ) {
      const start = splitter.startOfMatch(text, end);
      if (start > end && splitter.keepsGaps) this.#split(text.slice(end, start), stage + 1, out);
      end = splitter.endOfMatch;
      if (end > start) this.#split(text.slice(start, end), stage + 1, out);
    }
  }

  #encodeWord(word: string, out: IdBuffer): void {
    if (this.#words.appendTo(word, out)) return;
    const isShort = word.length <= MAX_CACHED_CHARS;
    const ids = isShort ? this.#scratch : new Int32Array(3 * word.length);
    const length = this.#mergeWord(word, ids);
    out.append(ids, 0, length);
    if (isShort) this.#words.remember(word, ids, length);
  }

  /** Writes the ids of a word into `ids`, which has room for its bytes; returns how many. */
  #mergeWord(word: string, ids: Int32Array): number {
    const { byteIds, ignoreMerges, merges } = this.#plan;
    const bytes = ids === this.#scratch ? this.#bytes : new Uint8Array(3 * word.length);
    const { written } = this.#utf8.encodeInto(word, bytes);
    const whole = ignoreMerges ? this.#vocabulary.idOf(spelled(bytes.subarray(0, written))) : null;
    if (whole !== null) {
      ids[0] = whole;
      return 1;
    }
    for (let i = 0; i < written; i++) ids[i] = byteIds[bytes[i]!]!;
    return mergeSymbols(ids, written, merges);
  }
}

function spelled(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += CHARACTER_OF_BYTE[byte]!;
  return text;
}

function isPlainBpe({ model }: TokenizerJson): boolean {
  return (model.type ?? 'BPE') === 'BPE' && !Array.isArray(model.vocab) && Array.isArray(model.merges) &&
    (model.continuing_subword_prefix ?? '') === '' && (model.end_of_word_suffix ?? '') === '';
}

function unicodeForms(normalizer: Component | null | undefined): string[] | null {
  const forms = flatten(normalizer).map((part) => part.type);
  return forms.every((form) => /^NFK?[CD]$/.test(form)) ? forms : null;
}

/** The steps up to the final ByteLevel, or null when one of them is not known here. */
function splitStages(preTokenizer: Component | null | undefined): Pick<Plan, 'splitters' | 'prefixSpace'> | null {
  const steps = flatten(preTokenizer);
  const byteLevel = steps.pop();
  if (byteLevel?.type !== 'ByteLevel') return null;
  const prefixSpace = byteLevel['add_prefix_space'] === true;
  const splitters = steps.map(splitterOf);
  // The prefix would go to every piece of the earlier steps.
  if ((prefixSpace && steps.length > 0) || splitters.includes(null)) return null;
  if (byteLevel['use_regex'] !== false) splitters.push(new Splitter(translatePattern(GPT2_PATTERN)!, false));
  return { splitters: splitters.filter((splitter) => splitter !== null), prefixSpace };
}

function splitterOf(step: Component): Splitter | null {
  if (step.type === 'Digits') {
    return new Splitter(step['individual_digits'] === true ? /\p{N}/gu : /\p{N}+/gu, true);
  }
  const pattern = step.type === 'Split' ? patternOf(step['pattern']) : null;
  const inverted = step['invert'] === true;
  if (pattern === null || step['behavior'] !== (inverted ? 'Removed' : 'Isolated')) return null;
  return new Splitter(pattern, !inverted);
}

function patternOf(pattern: unknown): RegExp | null {
  if (typeof pattern !== 'object' || pattern === null) return null;
  if ('Regex' in pattern && typeof pattern.Regex === 'string') return translatePattern(pattern.Regex);
  return 'String' in pattern && typeof pattern.String === 'string' ? literalPattern(pattern.String) : null;
}

function mergeTable(merges: readonly (string | readonly [string, string])[], vocabulary: Vocabulary): MergeTable {
  const pairs = new Int32Array(3 * merges.length);
  const idOf = (token: string, rank: number) => {
    const id = vocabulary.idOf(token);
    if (id === null) throw new Error(`merge ${rank} names the token ${JSON.stringify(token)}, which the vocabulary does not have`);
    return id;
  };
  merges.forEach((merge, rank) => {
    const [left = '', right = ''] = typeof merge === 'string' ? merge.split(' ') : merge;
    pairs.set([idOf(left, rank), idOf(right, rank), idOf(left + right, rank)], 3 * rank);
  });
  return new MergeTable(pairs);
}
