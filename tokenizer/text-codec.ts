/**
 * One model's tokenizer and chat template as two calls that give token ids. Synchronous: text-service.ts runs it
 * where it stands for short texts, text-worker.ts in a thread for long ones.
 */
import { loadChatTemplate, type ChatMessage, type ChatOptions, type ChatTemplate } from './chat-template.ts';
import { loadTokenizer, type Tokenizer } from './tokenizer.ts';

export class TextCodec {
  readonly tokenizer: Tokenizer;
  readonly #template: ChatTemplate;

  constructor(tokenizer: Tokenizer, template: ChatTemplate) {
    this.tokenizer = tokenizer;
    this.#template = template;
  }

  /** A raw prompt: special tokens in it are parsed; `addSpecial` puts the begin-of-text token first if the model wants it. */
  encodePrompt(text: string, { addSpecial }: { readonly addSpecial: boolean }): Int32Array<ArrayBuffer> {
    const ids = this.tokenizer.encode(text, { special: 'parse' });
    const { bosId, addBos } = this.tokenizer;
    return addSpecial && addBos && bosId !== null ? prepend(bosId, ids) : ids;
  }

  /** The template writes the begin-of-text token itself. Throws ChatTemplateError. */
  encodeChat(messages: readonly ChatMessage[], options: ChatOptions): Int32Array<ArrayBuffer> {
    const { text, guard } = this.#template.render(messages, options);
    return this.tokenizer.encode(text, { special: 'parse', guard });
  }
}

/** Reads a model folder; throws ModelFileError. */
export async function loadTextCodec(dir: string): Promise<TextCodec> {
  const tokenizer = await loadTokenizer(dir);
  return new TextCodec(tokenizer, await loadChatTemplate(dir, tokenizer.specials));
}

function prepend(id: number, ids: Int32Array): Int32Array<ArrayBuffer> {
  const all = new Int32Array(ids.length + 1);
  all[0] = id;
  all.set(ids, 1);
  return all;
}
