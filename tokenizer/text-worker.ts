/**
 * Runs in a worker thread: a TextCodec of its own that encodes one long text at a time. Knows no pool.
 * text-service.ts names this file to piscina, which calls `encode`.
 */
import { isMainThread } from 'node:worker_threads';
import { move, workerData } from 'piscina';
import { ChatTemplateError, type ChatMessage, type ChatOptions } from './chat-template.ts';
import { loadTextCodec, type TextCodec } from './text-codec.ts';

export type EncodeTask =
  | { readonly kind: 'prompt'; readonly text: string; readonly addSpecial: boolean }
  | { readonly kind: 'chat'; readonly messages: readonly ChatMessage[]; readonly options: ChatOptions };

/** Ids, whose memory moves to the caller, or the message of a ChatTemplateError, whose class a thread border loses. */
export type EncodeAnswer = Int32Array | string;

const WARM_UP_TOKENS = 10_000;

// Loaded with the thread and not with its first task, which then does not wait for the files.
const codec: Promise<TextCodec> | null = isMainThread ? null : loadWarmCodec((workerData as { dir: string }).dir);
// A failure belongs to the task that meets it.
codec?.catch(() => undefined);

export async function encode(task: EncodeTask): Promise<EncodeAnswer> {
  if (codec === null) throw new Error('text-worker runs in worker threads only');
  const loaded = await codec;
  try {
    return move(runTask(loaded, task)) as Int32Array;
  } catch (error) {
    if (error instanceof ChatTemplateError) return error.message;
    throw error;
  }
}

/** Encodes part of the vocabulary once: its words are then remembered and the code is compiled. */
async function loadWarmCodec(dir: string): Promise<TextCodec> {
  const loaded = await loadTextCodec(dir);
  const ids = Array.from({ length: Math.min(WARM_UP_TOKENS, loaded.tokenizer.vocab) }, (_, id) => id);
  loaded.encodePrompt(loaded.tokenizer.decode(ids, { skipSpecial: true }), { addSpecial: false });
  return loaded;
}

function runTask(codec: TextCodec, task: EncodeTask): Int32Array<ArrayBuffer> {
  return task.kind === 'prompt' ? codec.encodePrompt(task.text, task) : codec.encodeChat(task.messages, task.options);
}
