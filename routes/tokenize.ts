/** POST /tokenize: the tokens of a text or a conversation, as the generation endpoints would see them. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { Readable } from 'node:stream';
import { apiError } from '../server/errors.ts';
import { tokenName } from '../server/generate/logprobs.ts';
import { checkModel, encodeConversation, refuseOtherParts } from '../server/generate/prompts.ts';
import type { Services } from '../server/services.ts';
import { ErrorReply, toJson } from './schemas-replies.ts';
import { TokenizeBody, TokenizeReply } from './schemas-tokenize.ts';
import { tokenizeJson } from './tokenize-json.ts';

export function tokenizeRoute(app: FastifyInstance, services: Services): void {
  const schema = { summary: 'Count and list tokens', tags: ['tokens'], body: TokenizeBody, response: { 200: TokenizeReply, '4xx': ErrorReply } };
  app.withTypeProvider<TypeBoxTypeProvider>().post('/tokenize', { schema, serializerCompiler: toJson }, async ({ body }, reply) => {
    checkModel(body.model ?? null, services.model.name);
    const tokens = await encode(body, services);
    const nameOf = (token: number): string => tokenName(services.text.tokenizer.tokenBytes(token));
    const json = tokenizeJson({ tokens, maxModelLen: services.model.contextLength, nameOf: body.return_token_strs === true ? nameOf : null });
    return sendJson(reply, json);
  });
}

/** Sends JSON that comes in pieces. The schema's serializer has no part in it: a stream goes out as it is. */
function sendJson(reply: FastifyReply, pieces: AsyncIterable<string>): FastifyReply {
  return reply.type('application/json; charset=utf-8').send(Readable.from(pieces, { objectMode: false }));
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
