/**
 * Token ids to text while they are generated. Gives out whole characters only: the bytes of a character that is
 * not yet complete wait for the next token. Knows no stop strings. One per stream, used by the routes.
 */
import type { Tokenizer } from './tokenizer.ts';

export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecial: boolean;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(tokenizer: Tokenizer, { skipSpecial }: { readonly skipSpecial: boolean }) {
    this.#tokenizer = tokenizer;
    this.#skipSpecial = skipSpecial;
  }

  /**
   * The text that this token completes, '' while none is. A space at the start is kept, also where `decode` drops
   * it: generated text goes on from a prompt.
   */
  push(id: number): string {
    return this.#utf8.decode(this.bytesOf(id), { stream: true });
  }

  /** What is left at the end: U+FFFD for a character that was never completed. */
  flush(): string {
    return this.#utf8.decode();
  }

  /** What a token adds to the text, for `logprobs.bytes`; nothing for a special token that is skipped. */
  bytesOf(id: number): Uint8Array {
    return this.#skipSpecial && this.#tokenizer.isSpecial(id) ? NO_BYTES : this.#tokenizer.tokenBytes(id);
  }
}

const NO_BYTES = new Uint8Array(0);
