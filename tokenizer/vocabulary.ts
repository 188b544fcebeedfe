/**
 * Token ids, their texts and their bytes. Knows no merges and no splitting. Built by tokenizer.ts from
 * tokenizer.json; both section encoders and the decoding side read it.
 */
import { bytesOfByteLevelToken } from './byte-alphabet.ts';
import type { Component, TokenizerJson } from './model-files.ts';

/** How a vocabulary writes bytes: GPT-2's alphabet, or SentencePiece's ▁ for a space and <0x0A> for a byte. */
export type Spelling = 'byte-level' | 'metaspace';

export class Vocabulary {
  /** One above the highest token id. */
  readonly size: number;
  readonly spelling: Spelling;
  readonly #texts: (string | undefined)[] = [];
  readonly #ids = new Map<string, number>();
  readonly #added = new Set<number>();
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #byteFallback: boolean;

  constructor(json: TokenizerJson) {
    this.spelling = mentions(json.decoder ?? json.pre_tokenizer, 'ByteLevel') ? 'byte-level' : 'metaspace';
    this.#byteFallback = json.model.byte_fallback === true;
    for (const [text, id] of modelEntries(json)) this.#set(text, id);
    for (const token of json.added_tokens ?? []) {
      this.#set(token.content, token.id);
      this.#added.add(token.id);
    }
    this.size = this.#texts.length;
  }

  idOf(token: string): number | null {
    return this.#ids.get(token) ?? null;
  }

  /** The token as the vocabulary spells it; '' for an id without a token. */
  textOf(id: number): string {
    return this.#texts[id] ?? '';
  }

  /** The bytes that a token stands for; none for an id without a token. Callers must not write into them. */
  bytesOf(id: number): Uint8Array {
    return (this.#bytes[id] ??= this.#spell(id));
  }

  isAdded(id: number): boolean {
    return this.#added.has(id);
  }

  #set(text: string, id: number): void {
    this.#texts[id] = text;
    this.#ids.set(text, id);
  }

  #spell(id: number): Uint8Array {
    const text = this.textOf(id);
    if (this.#added.has(id)) return Buffer.from(text, 'utf8');
    if (this.spelling === 'byte-level') return bytesOfByteLevelToken(text);
    const byte = this.#byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null;
    return byte === null ? Buffer.from(text.replaceAll('▁', ' '), 'utf8') : Uint8Array.of(Number.parseInt(byte[1]!, 16));
  }
}

/** Whether a component or one inside it is of this type. */
function mentions(component: Component | null | undefined, type: string): boolean {
  return flatten(component).some((part) => part.type === type);
}

/** A component as the list of what it is made of, sequences opened. */
export function flatten(component: Component | null | undefined): Component[] {
  if (component === null || component === undefined) return [];
  const parts = component['pretokenizers'] ?? component['normalizers'] ?? component['decoders'] ?? component['processors'];
  return component.type === 'Sequence' && Array.isArray(parts) ? parts.flatMap((part) => flatten(part as Component)) : [component];
}

function modelEntries(json: TokenizerJson): [string, number][] {
  const { vocab } = json.model;
  return isScored(vocab) ? vocab.map(([text], id) => [text, id]) : Object.entries(vocab);
}

// Array.isArray does not narrow readonly arrays out of a union.
function isScored(vocab: TokenizerJson['model']['vocab']): vocab is readonly (readonly [string, number])[] {
  return Array.isArray(vocab);
}
