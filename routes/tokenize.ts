/** POST /tokenize: the tokens of a text or a conversation, as the generation endpoints would see them. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance } from 'fastify';
import { apiError } from '../server/errors.ts';
import { tokenName } from '../server/generate/logprobs.ts';
import { checkModel, encodeConversation, refuseOtherParts } from '../server/generate/prompts.ts';
import type { Services } from '../server/services.ts';
import { ErrorReply, toJson } from './schemas-replies.ts';
import { TokenizeBody, TokenizeReply } from './schemas-tokenize.ts';

export function tokenizeRoute(app: FastifyInstance, services: Services): void {
  const schema = { summary: 'Count and list tokens', tags: ['tokens'], body: TokenizeBody, response: { 200: TokenizeReply, '4xx': ErrorReply } };
  app.withTypeProvider<TypeBoxTypeProvider>().post('/tokenize', { schema, serializerCompiler: toJson }, async ({ body }) => {
    checkModel(body.model ?? null, services.model.name);
    const tokens = Array.from(await encode(body, services));
    const name = (token: number): string => tokenName(services.text.tokenizer.tokenBytes(token));
    return {
      count: tokens.length,
      max_model_len: services.model.contextLength,
      tokens,
      token_strs: body.return_token_strs === true ? tokens.map(name) : null,
    };
  });
}

async function encode(body: TokenizeBody, { text }: Services): Promise<Int32Array> {
  const { prompt, messages } = body;
  if ((prompt === undefined) === (messages === undefined)) {
    throw apiError('invalid_request', { reason: "give either 'prompt' or 'messages'." });
  }
  if (messages === undefined) return text.encodePrompt(prompt!, { addSpecial: body.add_special_tokens ?? true });
  messages.forEach(refuseOtherParts);
  return encodeConversation(text, { ...body, messages });
}
