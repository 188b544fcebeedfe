/**
 * Every tokenizer that byte-level-bpe.ts does not know (SentencePiece-like ones of Llama 2 and Mistral, unusual
 * splits), through @huggingface/tokenizers. Uses its normalizer, pre-tokenizer and model; added tokens are ours,
 * since the library cannot leave special ones unparsed. Built by tokenizer.ts.
 */
import { Tokenizer as Library } from '@huggingface/tokenizers';
import type { TokenizerConfig, TokenizerJson } from './model-files.ts';
import type { IdBuffer, SectionEncoder } from './section-encoder.ts';

export class LibraryTokenizer implements SectionEncoder {
  readonly bytesPerSecond = 5e5;
  readonly #library: Library;

  /** Throws the library's Error for a component that it does not know. */
  constructor(json: TokenizerJson, config: TokenizerConfig) {
    const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
    this.#library = new Library({ ...absent, ...json, added_tokens: [] }, config);
  }

  normalize(text: string): string {
    const { normalizer } = this.#library;
    return normalizer === null ? text : normalizer.normalize(text);
  }

  encode(text: string, first: boolean, out: IdBuffer): void {
    const { pre_tokenizer: preTokenizer, model } = this.#library;
    if (text === '') return;
    // Its Metaspace takes section 0 for the start of the text.
    const words = preTokenizer === null ? [text] : preTokenizer.pre_tokenize(text, { section_index: first ? 0 : 1 });
    for (const token of model._call(words)) {
      const id = model.tokens_to_ids.get(token) ?? model.unk_token_id;
      if (id !== undefined) out.push(id);
    }
  }
}
