/**
 * Token ids of prompts and chats without ever holding up the event loop: short texts are encoded on the spot, long
 * ones in worker threads, whose answers are transferred. Knows no HTTP and no engine. The routes call it.
 */
import type { ChatMessage, ChatOptions } from './chat-template.ts';
import { ChatTemplateError } from './chat-template.ts';
import { loadTextCodec, type TextCodec } from './text-codec.ts';
import type { EncodeAnswer, EncodeTask } from './text-worker.ts';
import type { Tokenizer } from './tokenizer.ts';
import { WorkerPool } from './worker-pool.ts';

export interface TextService {
  readonly tokenizer: Tokenizer;
  /** A raw completion prompt: specials parsed, and the begin-of-text token first if asked for and the model adds it. */
  encodePrompt(text: string, options: { readonly addSpecial: boolean }): Promise<Int32Array>;
  /** Rejects with ChatTemplateError for messages that the model's template refuses. */
  encodeChat(messages: readonly ChatMessage[], options: ChatOptions): Promise<Int32Array>;
  /** Ends the threads; what they are encoding is rejected. */
  close(): Promise<void>;
}

export interface TextServiceOptions {
  /** Worker threads at most; one is started at once. */
  readonly maxThreads: number;
  /** Texts of more bytes than this go to a thread. Default: what this tokenizer encodes in about 8 ms. */
  readonly maxInlineBytes?: number;
  /** For metrics: after each text, the seconds from call to answer and its UTF-8 bytes. */
  readonly onEncode?: (seconds: number, bytes: number) => void;
}

/** The text service of a model folder; throws ModelFileError. Its first thread is warm, or soon will be. */
export async function openTextService(dir: string, options: TextServiceOptions): Promise<TextService> {
  const codec = await loadTextCodec(dir);
  const pool = new WorkerPool<EncodeTask, EncodeAnswer>({
    file: new URL('./text-worker.ts', import.meta.url), name: 'encode', maxThreads: options.maxThreads, data: { dir },
  });
  return new PooledTextService(codec, pool, options);
}

const INLINE_SECONDS = 0.008;
/** Rendering an object, such as a message, costs about as much as encoding this many bytes. */
const OBJECT_BYTES = 320;

class PooledTextService implements TextService {
  readonly tokenizer: Tokenizer;
  readonly #codec: TextCodec;
  readonly #pool: WorkerPool<EncodeTask, EncodeAnswer>;
  readonly #maxInlineBytes: number;
  readonly #onEncode: (seconds: number, bytes: number) => void;

  constructor(codec: TextCodec, pool: WorkerPool<EncodeTask, EncodeAnswer>, options: TextServiceOptions) {
    this.tokenizer = codec.tokenizer;
    this.#codec = codec;
    this.#pool = pool;
    this.#maxInlineBytes = options.maxInlineBytes ?? INLINE_SECONDS * codec.tokenizer.bytesPerSecond;
    this.#onEncode = options.onEncode ?? (() => undefined);
  }

  encodePrompt(text: string, { addSpecial }: { readonly addSpecial: boolean }): Promise<Int32Array> {
    const task: EncodeTask = { kind: 'prompt', text, addSpecial };
    return this.#encode(task, { inline: () => this.#codec.encodePrompt(text, { addSpecial }), size: sizeOf(text) });
  }

  encodeChat(messages: readonly ChatMessage[], options: ChatOptions): Promise<Int32Array> {
    const task: EncodeTask = { kind: 'chat', messages, options };
    return this.#encode(task, { inline: () => this.#codec.encodeChat(messages, options), size: sizeOf([messages, options]) });
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  async #encode(task: EncodeTask, { inline, size }: { inline: () => Int32Array; size: Size }): Promise<Int32Array> {
    const start = performance.now();
    const isShort = size.bytes + OBJECT_BYTES * size.objects <= this.#maxInlineBytes;
    const ids = isShort ? inline() : await this.#pool.run(task);
    if (typeof ids === 'string') throw new ChatTemplateError(ids);
    this.#onEncode((performance.now() - start) / 1000, size.bytes);
    return ids;
  }
}

interface Size { readonly bytes: number; readonly objects: number }

/** The UTF-8 bytes of all strings in a JSON value, and its objects and arrays. */
function sizeOf(value: unknown): Size {
  if (typeof value === 'string') return { bytes: Buffer.byteLength(value), objects: 0 };
  if (typeof value !== 'object' || value === null) return { bytes: 0, objects: 0 };
  return Object.values(value).map(sizeOf).reduce((sum, size) => ({ bytes: sum.bytes + size.bytes, objects: sum.objects + size.objects }), { bytes: 0, objects: 1 });
}
