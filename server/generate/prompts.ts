/**
 * The prompts of a request, whatever endpoint they came to: how many, how large before tokenising, and how to get
 * their tokens. Knows the text service and no engine. Made by the routes, used by generate.ts.
 */
import type { ChatMessage, ChatCompletionBody } from '../../routes/schemas-chat.ts';
import type { PromptParameter } from '../../routes/schemas-completions.ts';
import type { TextService } from '../../tokenizer/text-service.ts';
import { ChatTemplateError, type ChatOptions } from '../../tokenizer/chat-template.ts';
import type { Conversation as RetrievalConversation } from '../../retrieval/retrieve.ts';
import { apiError } from '../errors.ts';

export interface EncodedPrompt {
  readonly ids: Int32Array;
  /** The text as the client sent it; null when it sent token ids (or a conversation). */
  readonly text: string | null;
}

export interface Prompts {
  readonly noun: 'messages' | 'prompt';
  readonly count: number;
  /** From the bytes of texts, exact for token ids. */
  readonly estimatedTokens: number;
  /** What a drafter's shorter prompt is made from; null for raw prompts. */
  readonly conversation: RetrievalConversation | null;
  /** Throws ApiError for what cannot be encoded. */
  encode(text: TextService): Promise<EncodedPrompt[]>;
}

const BYTES_PER_TOKEN = 4;
const estimate = (text: string): number => Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN);
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export type Conversation = Pick<ChatCompletionBody, 'messages' | 'add_generation_prompt' | 'continue_final_message' | 'chat_template_kwargs'>;

export function chatPrompts(conversation: Conversation): Prompts {
  conversation.messages.forEach(refuseOtherParts);
  return {
    noun: 'messages',
    count: 1,
    estimatedTokens: sum(conversation.messages.map((message) => sum(texts(message).map(estimate)))),
    conversation: { messages: conversation.messages, options: chatOptions(conversation) },
    encode: async (text) => [{ ids: await encodeConversation(text, conversation), text: null }],
  };
}

export function completionPrompts(prompt: PromptParameter): Prompts {
  const list = promptList(prompt);
  return {
    noun: 'prompt',
    count: list.length,
    estimatedTokens: sum(list.map((one) => typeof one === 'string' ? estimate(one) : one.length)),
    conversation: null,
    encode: (text) => Promise.all(list.map((one) => encodePrompt(text, one))),
  };
}

async function encodePrompt(text: TextService, prompt: string | readonly number[]): Promise<EncodedPrompt> {
  if (typeof prompt !== 'string') return { ids: Int32Array.from(prompt), text: null };
  return { ids: await text.encodePrompt(prompt, { addSpecial: true }), text: prompt };
}

/** A template that refuses these messages is the client's matter. */
export async function encodeConversation(text: TextService, conversation: Conversation): Promise<Int32Array> {
  try {
    return await text.encodeChat(conversation.messages, chatOptions(conversation));
  } catch (error) {
    if (error instanceof ChatTemplateError) throw apiError('chat_template_failed', { reason: error.message }, { param: 'messages' });
    throw error;
  }
}

function chatOptions(conversation: Conversation): ChatOptions {
  const continueFinalMessage = conversation.continue_final_message ?? false;
  return {
    addGenerationPrompt: conversation.add_generation_prompt ?? !continueFinalMessage,
    continueFinalMessage,
    variables: conversation.chat_template_kwargs ?? {},
  };
}

/** 'text' | ['text', ...] | [1, 2] | [[1, 2], ...]; a mixture is refused. */
function promptList(prompt: PromptParameter): (string | number[])[] {
  if (typeof prompt === 'string') return [prompt];
  if (prompt.every((item) => typeof item === 'number')) return [prompt];
  if (prompt.every((item) => typeof item === 'string')) return prompt;
  if (prompt.every((item) => Array.isArray(item))) return prompt;
  throw apiError('invalid_type', { param: 'prompt', expected: 'a string, or a list of only strings, only token ids or only lists of token ids', got: 'a mixture' });
}

function texts({ content }: ChatMessage): string[] {
  if (typeof content === 'string') return [content];
  return (content ?? []).map((part) => part.text ?? '');
}

/** Images and audio are refused by name. */
export function refuseOtherParts({ content }: ChatMessage, index: number): void {
  if (!Array.isArray(content)) return;
  content.forEach((part, position) => {
    const param = `messages[${index}].content[${position}]`;
    if (part.type !== 'text') throw apiError('unsupported_value', { param: `${param}.type`, reason: `This model reads text only, not '${part.type.slice(0, 64)}'.` });
    if (part.text === undefined) throw apiError('missing_required_parameter', { param: `${param}.text` });
  });
}

export function checkModel(asked: string | null, served: string): void {
  if (asked !== null && asked !== served) throw apiError('model_not_found', { model: asked }, { param: 'model' });
}
