/** The body of POST /v1/chat/completions. Knows shapes and bounds only. Used by chat-completions.ts and tokenize.ts. */
import { Type, type Static } from 'typebox';
import { MAX_TOKENS, accepted, optionalBoolean, optionalInteger, sharedParameters } from './schemas.ts';

const ContentPart = Type.Object({
  type: Type.String({ description: '"text"; images and audio are refused.' }),
  text: Type.Optional(Type.String()),
});

export const ChatMessage = Type.Object({
  role: Type.String({ minLength: 1, maxLength: 64, description: 'system, user, assistant, or any role that the chat template knows.' }),
  content: Type.Optional(Type.Unsafe<string | Static<typeof ContentPart>[] | null>({ type: ['string', 'array', 'null'], items: ContentPart })),
  name: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'] })),
});
export type ChatMessage = Static<typeof ChatMessage>;

/** What decides how messages become a prompt; shared with POST /tokenize. */
export const templateParameters = {
  add_generation_prompt: optionalBoolean('End the prompt where the assistant begins; default true, false with continue_final_message.'),
  continue_final_message: optionalBoolean('Leave the last message open so that the answer continues it.'),
  chat_template_kwargs: Type.Optional(Type.Unsafe<Record<string, unknown> | null>({ type: ['object', 'null'], description: 'Variables for the chat template.' })),
};

export const ChatCompletionBody = Type.Object({
  messages: Type.Array(ChatMessage, { minItems: 1, maxItems: 100_000 }),
  ...sharedParameters,
  ...templateParameters,
  max_tokens: optionalInteger({ minimum: 1, maximum: MAX_TOKENS }, 'Tokens per choice at most; default: what the context leaves.'),
  max_completion_tokens: optionalInteger({ minimum: 1, maximum: MAX_TOKENS }, 'Newer name of max_tokens; wins over it.'),
  logprobs: optionalBoolean('Report the log-probability of every token.'),
  top_logprobs: optionalInteger({ minimum: 0, maximum: 20 }, 'Report this many alternatives too. Only with logprobs.'),
  response_format: Type.Optional(Type.Unsafe<{ type: string } | null>({
    type: ['object', 'null'], required: ['type'], properties: { type: { type: 'string' } }, description: '{"type":"text"} only.',
  })),
  tools: Type.Optional(Type.Unsafe<unknown[] | null>({ type: ['array', 'null'], description: 'Not supported yet.' })),
  tool_choice: Type.Optional(Type.Unknown({ description: '"none" and "auto" are accepted; tools are not supported yet.' })),
  parallel_tool_calls: accepted(),
}, { description: 'OpenAI\'s chat completion request, with the extensions of vLLM and long_context. Unknown parameters are ignored and listed in the header x-longspan-ignored-parameters.' });
export type ChatCompletionBody = Static<typeof ChatCompletionBody>;
