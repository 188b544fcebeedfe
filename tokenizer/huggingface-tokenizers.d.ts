/**
 * The part of @huggingface/tokenizers that we call. Its own declarations import without file extensions, which
 * this module resolution cannot follow.
 */
declare module '@huggingface/tokenizers' {
  export class Tokenizer {
    constructor(tokenizer: object, config: object);
    readonly normalizer: { normalize(text: string): string } | null;
    readonly pre_tokenizer: { pre_tokenize(text: string, options: { section_index: number }): string[] } | null;
    readonly model: {
      /** Tokens of pre-tokenised words, unknown ones fused where the model asks for it. */
      _call(words: string[]): string[];
      readonly tokens_to_ids: ReadonlyMap<string, number>;
      readonly unk_token_id?: number;
    };
    encode(text: string, options?: { add_special_tokens?: boolean }): { ids: number[] };
    decode(ids: number[], options?: { skip_special_tokens?: boolean; clean_up_tokenization_spaces?: boolean }): string;
  }
}
