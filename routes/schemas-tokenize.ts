/** Bodies of POST /tokenize and POST /detokenize, in vLLM's shapes. */
import { Type, type Static } from 'typebox';
import { ChatMessage, templateParameters } from './schemas-chat.ts';
import { MAX_TOKENS, optionalBoolean, optionalString } from './schemas.ts';

const model = optionalString(512, 'Name of the served model.');

export const TokenizeBody = Type.Object({
  model,
  prompt: Type.Optional(Type.String({ description: 'A raw text. Either this or messages.' })),
  messages: Type.Optional(Type.Array(ChatMessage, { minItems: 1, maxItems: 100_000, description: 'A conversation, put through the chat template.' })),
  ...templateParameters,
  add_special_tokens: optionalBoolean('Begin a raw text as the model wants it (its beginning-of-text token); default true.'),
  return_token_strs: optionalBoolean('Add the text of every token.'),
});
export type TokenizeBody = Static<typeof TokenizeBody>;

export const TokenizeReply = Type.Object({
  count: Type.Integer(),
  max_model_len: Type.Integer(),
  tokens: Type.Array(Type.Integer()),
  token_strs: Type.Unsafe<string[] | null>({ type: ['array', 'null'], items: { type: 'string' } }),
});

export const DetokenizeBody = Type.Object({
  model,
  tokens: Type.Array(Type.Integer({ minimum: 0, maximum: MAX_TOKENS }), { maxItems: MAX_TOKENS }),
});

export const DetokenizeReply = Type.Object({ prompt: Type.String() });
