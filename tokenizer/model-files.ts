/**
 * Reads a checkpoint's tokenizer files and says in one sentence what is wrong with them. Knows the shape of
 * tokenizer.json and tokenizer_config.json, not their meaning. Called by tokenizer.ts and chat-template.ts.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A file of the model is missing or broken; the message names the file and what is wrong with it. */
export class ModelFileError extends Error {
  readonly file: string;

  constructor(file: string, problem: string, cause?: unknown) {
    super(`${file} ${problem}`, { cause });
    this.name = 'ModelFileError';
    this.file = file;
  }
}

/** A normalizer, pre-tokenizer, decoder or post-processor: what else it holds depends on its type. */
export interface Component { readonly type: string; readonly [key: string]: unknown }

export interface AddedTokenEntry {
  readonly id: number;
  readonly content: string;
  readonly single_word?: boolean | null;
  readonly lstrip?: boolean | null;
  readonly rstrip?: boolean | null;
  readonly normalized?: boolean | null;
  readonly special?: boolean | null;
}

export interface TokenizerJson {
  readonly added_tokens?: readonly AddedTokenEntry[] | null;
  readonly normalizer?: Component | null;
  readonly pre_tokenizer?: Component | null;
  readonly post_processor?: Component | null;
  readonly decoder?: Component | null;
  readonly model: {
    readonly type?: string | null;
    /** Token to id, or (token, score) by id. */
    readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
    /** By rank: "left right" or the pair. */
    readonly merges?: readonly (string | readonly [string, string])[] | null;
    readonly continuing_subword_prefix?: string | null;
    readonly end_of_word_suffix?: string | null;
    readonly byte_fallback?: boolean | null;
    readonly ignore_merges?: boolean | null;
  };
}

type SpecialToken = string | { readonly content: string } | null;

export interface TokenizerConfig {
  readonly bos_token?: SpecialToken;
  readonly eos_token?: SpecialToken;
  readonly pad_token?: SpecialToken;
  readonly unk_token?: SpecialToken;
  readonly add_bos_token?: boolean | null;
  readonly chat_template?: string | readonly { readonly name: string; readonly template: string }[] | null;
}

/** The parsed tokenizer.json of `dir`; throws ModelFileError. */
export async function readTokenizerJson(dir: string): Promise<TokenizerJson> {
  const file = join(dir, 'tokenizer.json');
  const text = await readText(file);
  if (text === null) throw new ModelFileError(file, 'is missing');
  return parseAs(file, text, tokenizerShape) as unknown as TokenizerJson;
}

/** The parsed tokenizer_config.json of `dir`, or an empty one where there is no such file; throws ModelFileError. */
export async function readTokenizerConfig(dir: string): Promise<TokenizerConfig> {
  const file = join(dir, 'tokenizer_config.json');
  return parseAs(file, (await readText(file)) ?? '{}', configShape);
}

/** A whole file as text, or null when it does not exist; throws ModelFileError when it cannot be read. */
export async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw new ModelFileError(file, `cannot be read: ${messageOf(error)}`, error);
  }
}

/** The text of a special token, which the file gives bare or as an object. */
export function specialText(token: SpecialToken | undefined): string | null {
  return typeof token === 'object' ? token?.content ?? null : token ?? null;
}

/** Each entry: what a file must hold, in words, and whether it does. */
type Shape = (value: Fields) => readonly (readonly [string, boolean])[];
type Fields = Readonly<Record<string, unknown>>;

function parseAs(file: string, text: string, shape: Shape): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelFileError(file, `is not valid JSON: ${messageOf(error)}`, error);
  }
  if (!isFields(value)) throw new ModelFileError(file, 'is malformed: it must hold an object');
  const broken = shape(value).find(([, holds]) => !holds);
  if (broken !== undefined) throw new ModelFileError(file, `is malformed: ${broken[0]}`);
  return value;
}

const tokenizerShape: Shape = ({ model, added_tokens: added, ...others }) => [
  ['"model" must be an object', isFields(model)],
  ['"model.type" must be BPE, Unigram or WordPiece', isFields(model) && isModelType(model['type'])],
  ['"model.vocab" must give each token its id', isFields(model) && isVocab(model['vocab'])],
  ['"model.merges" must be a list of pairs', isFields(model) && isListOf(model['merges'], isMerge)],
  ['"added_tokens" must be a list of objects with "id" and "content"', isListOf(added, isAddedToken)],
  ...['normalizer', 'pre_tokenizer', 'post_processor', 'decoder'].map((name) =>
    [`"${name}" must be an object with a "type", or null`, isAbsent(others[name]) || isComponent(others[name])] as const),
];

const configShape: Shape = (config) => [
  ...['bos_token', 'eos_token', 'pad_token', 'unk_token'].map((name) =>
    [`"${name}" must be a token's text, or null`, isSpecialToken(config[name])] as const),
  ['"add_bos_token" must be true or false', isAbsent(config['add_bos_token']) || typeof config['add_bos_token'] === 'boolean'],
  ['"chat_template" must be a text, or a list of objects with "name" and "template"', isChatTemplate(config['chat_template'])],
];

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

function isId(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0;
}

function isListOf(value: unknown, isItem: (item: unknown) => boolean): boolean {
  return isAbsent(value) || (Array.isArray(value) && value.every(isItem));
}

function isModelType(value: unknown): boolean {
  return isAbsent(value) || value === 'BPE' || value === 'Unigram' || value === 'WordPiece';
}

function isVocab(value: unknown): boolean {
  if (isFields(value)) return Object.values(value).every(isId);
  return Array.isArray(value) && value.every((entry) => Array.isArray(entry) && typeof entry[0] === 'string' && typeof entry[1] === 'number');
}

function isMerge(value: unknown): boolean {
  if (typeof value === 'string') return value.split(' ').length === 2;
  return Array.isArray(value) && value.length === 2 && value.every((token) => typeof token === 'string');
}

function isAddedToken(value: unknown): boolean {
  return isFields(value) && isId(value['id']) && typeof value['content'] === 'string' && value['content'] !== '';
}

function isComponent(value: unknown): boolean {
  const inner = isFields(value) ? value['pretokenizers'] ?? value['normalizers'] ?? value['decoders'] ?? value['processors'] : null;
  return isFields(value) && typeof value['type'] === 'string' && isListOf(inner, isComponent);
}

function isSpecialToken(value: unknown): boolean {
  return isAbsent(value) || typeof value === 'string' || (isFields(value) && typeof value['content'] === 'string');
}

function isChatTemplate(value: unknown): boolean {
  const isNamed = (entry: unknown) => isFields(entry) && typeof entry['name'] === 'string' && typeof entry['template'] === 'string';
  return typeof value === 'string' || isListOf(value, isNamed);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
