/**
 * Text to token ids and back, for the model in a folder. Puts the parts together: added tokens are cut out, a
 * section encoder does the text between them unless a cache has its ids, the vocabulary decodes. Knows no chat and no
 * threads. Called by text-codec.ts, stream-decoder.ts and the routes.
 */
import { join } from 'node:path';
import { AddedTokens } from './added-tokens.ts';
import { ByteLevelBpe } from './byte-level-bpe.ts';
import { LibraryTokenizer } from './library-tokenizer.ts';
import {
  ModelFileError, readTokenizerConfig, readTokenizerJson, specialText, type Component, type TokenizerConfig, type TokenizerJson,
} from './model-files.ts';
import { MIN_CACHED_CHARS, SectionCache } from './section-cache.ts';
import { IdBuffer, type SectionEncoder } from './section-encoder.ts';
import { flatten, Vocabulary } from './vocabulary.ts';

/** Private marks in a text that stand for ordinary text; `reveal` gives that text back. */
export interface Guard { reveal(text: string): string }

export interface EncodeOptions {
  /** 'parse': the texts of special tokens become these tokens; 'plain': they are ordinary text. */
  readonly special: 'parse' | 'plain';
  /** What it reveals is ordinary text, also where `special` is 'parse'. */
  readonly guard?: Guard;
}

export interface Tokenizer {
  /** One above the highest token id of the tokenizer's files; a model's head may be wider. */
  readonly vocab: number;
  /** No begin-of-text token is added. */
  encode(text: string, options: EncodeOptions): Int32Array<ArrayBuffer>;
  /** Bytes that are no UTF-8 become U+FFFD. Drops the space that the tokenizer itself puts before a text. */
  decode(ids: Iterable<number>, options: { readonly skipSpecial: boolean }): string;
  /** The bytes that a token adds to a text; empty for an id without a token. Not to be written to. */
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  idOf(token: string): number | null;
  /** As the vocabulary spells it: a space may be Ġ or ▁. */
  tokenText(id: number): string;
  readonly bosId: number | null;
  /** A raw prompt starts with bosId. A chat template writes its own. */
  readonly addBos: boolean;
  readonly eosId: number | null;
  /** The texts of all special tokens. */
  readonly specials: readonly string[];
  /** Roughly how fast `encode` is, to decide what may run on a busy event loop. */
  readonly bytesPerSecond: number;
}

/** The tokenizer of a Hugging Face model folder; throws ModelFileError. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const [json, config] = await Promise.all([readTokenizerJson(dir), readTokenizerConfig(dir)]);
  try {
    return createTokenizer(json, config);
  } catch (error) {
    throw new ModelFileError(join(dir, 'tokenizer.json'), `cannot be used: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

/** The same from parsed files; throws Error when they contradict themselves. */
export function createTokenizer(json: TokenizerJson, config: TokenizerConfig): Tokenizer {
  const vocabulary = new Vocabulary(json);
  const encoder = ByteLevelBpe.from(json, vocabulary) ?? new LibraryTokenizer(json, config);
  return new FileTokenizer(json, config, { vocabulary, encoder });
}

class FileTokenizer implements Tokenizer {
  readonly vocab: number;
  readonly bosId: number | null;
  readonly addBos: boolean;
  readonly eosId: number | null;
  readonly specials: readonly string[];
  readonly bytesPerSecond: number;
  readonly #vocabulary: Vocabulary;
  readonly #encoder: SectionEncoder;
  readonly #added: AddedTokens;
  readonly #longSections = new SectionCache();
  readonly #specialIds: ReadonlySet<number>;
  readonly #dropsLeadingSpace: boolean;

  constructor(json: TokenizerJson, config: TokenizerConfig, parts: { vocabulary: Vocabulary; encoder: SectionEncoder }) {
    const added = json.added_tokens ?? [];
    const specials = added.filter((token) => token.special === true);
    const templateBos = bosOfTemplate(json.post_processor);
    const idOf = (text: string | null) => (text === null ? null : parts.vocabulary.idOf(text));
    this.#vocabulary = parts.vocabulary;
    this.#encoder = parts.encoder;
    this.#added = new AddedTokens(added, (text) => parts.encoder.normalize(text));
    this.#specialIds = new Set(specials.map((token) => token.id));
    this.#dropsLeadingSpace = dropsLeadingSpace(json.decoder);
    this.specials = specials.map((token) => token.content);
    this.bytesPerSecond = parts.encoder.bytesPerSecond;
    this.vocab = parts.vocabulary.size;
    this.bosId = idOf(specialText(config.bos_token) ?? templateBos);
    this.addBos = this.bosId !== null && (config.add_bos_token ?? templateBos !== null);
    this.eosId = idOf(specialText(config.eos_token));
  }

  encode(text: string, { special, guard }: EncodeOptions): Int32Array<ArrayBuffer> {
    const out = new IdBuffer();
    for (const section of this.#added.splitRaw(text, special)) {
      if ('id' in section) out.push(section.id);
      else this.#encodeRevealed(section, guard, out);
    }
    return out.toIds();
  }

  decode(ids: Iterable<number>, { skipSpecial }: { readonly skipSpecial: boolean }): string {
    const chunks: Uint8Array[] = [];
    let firstId: number | null = null;
    for (const id of ids) {
      if (skipSpecial && this.#specialIds.has(id)) continue;
      firstId ??= id;
      chunks.push(this.#vocabulary.bytesOf(id));
    }
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(chunks));
    const drops = this.#dropsLeadingSpace && firstId !== null && !this.#vocabulary.isAdded(firstId);
    return drops && text.startsWith(' ') ? text.slice(1) : text;
  }

  tokenBytes(id: number): Uint8Array {
    return this.#vocabulary.bytesOf(id);
  }

  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  idOf(token: string): number | null {
    return this.#vocabulary.idOf(token);
  }

  tokenText(id: number): string {
    return this.#vocabulary.textOf(id);
  }

  /** A section in which a guard hid something may hold added tokens, but no special ones, once it is revealed. */
  #encodeRevealed({ text, start }: { text: string; start: number }, guard: Guard | undefined, out: IdBuffer): void {
    const revealed = guard === undefined ? text : guard.reveal(text);
    if (revealed === text) {
      this.#encodeSection(text, start === 0, out);
      return;
    }
    for (const section of this.#added.splitRaw(revealed, 'plain')) {
      if ('id' in section) out.push(section.id);
      else this.#encodeSection(section.text, start + section.start === 0, out);
    }
  }

  #encodeSection(text: string, first: boolean, out: IdBuffer): void {
    if (text.length < MIN_CACHED_CHARS) this.#encodeAnew(text, first, out);
    else this.#longSections.appendTo({ text, first }, out, () => { this.#encodeAnew(text, first, out); });
  }

  #encodeAnew(text: string, first: boolean, out: IdBuffer): void {
    for (const section of this.#added.splitNormalized(this.#encoder.normalize(text))) {
      if ('id' in section) out.push(section.id);
      else this.#encoder.encode(section.text, first && section.start === 0, out);
    }
  }
}

/** The token that a TemplateProcessing post-processor puts before a single text, if any. */
function bosOfTemplate(postProcessor: Component | null | undefined): string | null {
  const template = flatten(postProcessor).find((part) => part.type === 'TemplateProcessing')?.['single'];
  const first: unknown = Array.isArray(template) ? template[0] : null;
  if (typeof first !== 'object' || first === null || !('SpecialToken' in first)) return null;
  const special = first.SpecialToken;
  return typeof special === 'object' && special !== null && 'id' in special && typeof special.id === 'string' ? special.id : null;
}

/** SentencePiece-like decoders take off the one space that encoding put first. */
function dropsLeadingSpace(decoder: Component | null | undefined): boolean {
  return flatten(decoder).some((part) =>
    (part.type === 'Strip' && part['content'] === ' ' && typeof part['start'] === 'number' && part['start'] > 0) ||
    (part.type === 'Metaspace' && part['prepend_scheme'] !== 'never' && part['add_prefix_space'] !== false));
}
