/**
 * Messages to the text that a model was trained on, by the Jinja template of its folder. Content is guarded, so
 * that only the template itself can write special tokens. Knows no tokenizer: text-codec.ts encodes what it renders.
 */
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { ContentGuard } from './content-guard.ts';
import { ModelFileError, readText, readTokenizerConfig, specialText, type TokenizerConfig } from './model-files.ts';
import type { Guard } from './tokenizer.ts';

/** The messages cannot be rendered; the text is for the person who sent them (a 400). */
export class ChatTemplateError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'ChatTemplateError';
  }
}

export interface ChatMessage {
  readonly role: string;
  /** A text, or parts of type 'text', which are joined by line breaks. */
  readonly content?: string | null | readonly { readonly type: string; readonly text?: string }[];
  /** tool_calls, tool_call_id, name, reasoning_content ...: whatever the template looks at. */
  readonly [field: string]: unknown;
}

export interface ChatOptions {
  /** Ends with the header of the assistant's turn. Default: unless continueFinalMessage. */
  readonly addGenerationPrompt?: boolean;
  /** Leaves the last message open, for the model to go on with it. */
  readonly continueFinalMessage?: boolean;
  readonly tools?: readonly unknown[];
  readonly documents?: readonly unknown[];
  /** `chat_template_kwargs`: variables for the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** Rendered text; to be encoded with specials parsed and this guard. */
export interface RenderedChat { readonly text: string; readonly guard: Guard }

/** The template named 'default' or the only one, and one for requests with tools where the model has it. */
interface Templates { readonly plain: Template | null; readonly tools: Template | null }

export class ChatTemplate {
  readonly #templates: Templates;
  /** bos_token, eos_token ... [those that the model has] */
  readonly #tokens: Readonly<Record<string, string>>;
  readonly #guard: ContentGuard;

  constructor(templates: Templates, config: TokenizerConfig, specials: readonly string[]) {
    this.#templates = templates;
    this.#tokens = tokenVariables(config);
    this.#guard = new ContentGuard(specials);
  }

  /** Throws ChatTemplateError: no template, a message it refuses, a part that is no text. */
  render(messages: readonly ChatMessage[], options: ChatOptions = {}): RenderedChat {
    const continues = options.continueFinalMessage === true;
    if (continues && options.addGenerationPrompt === true) {
      throw new ChatTemplateError('add_generation_prompt and continue_final_message exclude each other');
    }
    const template = options.tools === undefined ? this.#templates.plain : this.#templates.tools ?? this.#templates.plain;
    if (template === null) {
      throw new ChatTemplateError('this model has no chat template; use /v1/completions, or add chat_template to its tokenizer_config.json');
    }
    const turns = messages.map(toTurn);
    const { value, guard, endMark } = this.#guard.seal({
      ...options.variables, tools: options.tools ?? null, documents: options.documents ?? null, messages: turns.map((turn) => ({ ...turn, role: '' })),
    });
    const sealed: Turn[] = value.messages.map((turn, i) => ({ ...turn, role: turns[i]!.role }));
    const shown = continues ? markEnd(sealed, endMark) : sealed;
    const variables = { ...value, ...this.#tokens, messages: shown, add_generation_prompt: options.addGenerationPrompt ?? !continues };
    const text = renderWith(template, variables);
    return { text: continues ? cutAtMark(text, endMark) : text, guard };
  }
}

/** The chat template of a model folder; one without a template refuses every chat. Throws ModelFileError. */
export async function loadChatTemplate(dir: string, specials: readonly string[]): Promise<ChatTemplate> {
  const jinja = join(dir, 'chat_template.jinja');
  const [source, config] = await Promise.all([readText(jinja), readTokenizerConfig(dir)]);
  const file = source === null ? join(dir, 'tokenizer_config.json') : jinja;
  const named = source ?? config.chat_template ?? [];
  const list = typeof named === 'string' ? [{ name: 'default', template: named }] : named;
  const find = (name: string) => {
    const found = list.find((entry) => entry.name === name);
    return found === undefined ? null : parseTemplate(found.template, file);
  };
  return new ChatTemplate({ plain: find('default'), tools: find('tool_use') }, config, specials);
}

interface Turn { readonly role: string; readonly content: string | null; readonly [field: string]: unknown }

function parseTemplate(source: string, file: string): Template {
  try {
    return new Template(source);
  } catch (error) {
    throw new ModelFileError(file, `has a chat template that cannot be parsed: ${messageOf(error)}`, error);
  }
}

function renderWith(template: Template, variables: Record<string, unknown>): string {
  try {
    return template.render(variables);
  } catch (error) {
    throw new ChatTemplateError(`the model's chat template refuses these messages: ${messageOf(error)}`, error);
  }
}

function toTurn(message: ChatMessage): Turn {
  // Templates write the role between their own markers, so it is the one text that is not guarded.
  if (!/^[\w-]+$/.test(message.role)) throw new ChatTemplateError(`${JSON.stringify(message.role)} is not a role`);
  const turn = { ...message, content: contentText(message.content) };
  return Array.isArray(message['tool_calls']) ? { ...turn, tool_calls: message['tool_calls'].map(withParsedArguments) } : turn;
}

/** The text of a message: parts are joined by line breaks. Throws ChatTemplateError for a part that is no text. */
export function contentText(content: ChatMessage['content']): string | null {
  if (typeof content === 'string' || content === null || content === undefined) return content ?? null;
  return content.map((part) => {
    if (part.type === 'text' && typeof part.text === 'string') return part.text;
    throw new ChatTemplateError(`this model reads text only, not a content part of type ${JSON.stringify(part.type)}`);
  }).join('\n');
}

/** Templates write the arguments of a call as an object; the API carries them as a string of JSON. */
function withParsedArguments(call: unknown): unknown {
  if (typeof call !== 'object' || call === null || !('function' in call)) return call;
  const callee = call.function;
  if (typeof callee !== 'object' || callee === null || !('arguments' in callee) || typeof callee.arguments !== 'string') return call;
  return { ...call, function: { ...callee, arguments: parsedObject(callee.arguments) } };
}

/** The object that a text holds, or the text itself where it is something else. */
function parsedObject(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

function markEnd(turns: readonly Turn[], endMark: string): Turn[] {
  const last = turns.at(-1);
  if (last === undefined || last.content === null) throw new ChatTemplateError('continue_final_message needs a last message with content');
  return [...turns.slice(0, -1), { ...last, content: last.content + endMark }];
}

function cutAtMark(text: string, endMark: string): string {
  const end = text.lastIndexOf(endMark);
  if (end < 0) throw new ChatTemplateError("continue_final_message: the model's chat template does not write out the last message");
  return text.slice(0, end);
}

function tokenVariables(config: TokenizerConfig): Record<string, string> {
  const names = ['bos_token', 'eos_token', 'pad_token', 'unk_token'] as const;
  return Object.fromEntries(names.flatMap((name) => {
    const text = specialText(config[name]);
    return text === null ? [] : [[name, text]];
  }));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
