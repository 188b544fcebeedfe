/** POST /detokenize: the text of tokens, special ones included. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance } from 'fastify';
import { checkModel } from '../server/generate/prompts.ts';
import { checkVocabulary } from '../server/generate/settings.ts';
import type { Services } from '../server/services.ts';
import { ErrorReply, toJson } from './schemas-replies.ts';
import { DetokenizeBody, DetokenizeReply } from './schemas-tokenize.ts';

export function detokenizeRoute(app: FastifyInstance, { text, model }: Services): void {
  const schema = { summary: 'Text of tokens', tags: ['tokens'], body: DetokenizeBody, response: { 200: DetokenizeReply, '4xx': ErrorReply } };
  app.withTypeProvider<TypeBoxTypeProvider>().post('/detokenize', { schema, serializerCompiler: toJson }, ({ body }) => {
    checkModel(body.model ?? null, model.name);
    checkVocabulary(body.tokens, text.tokenizer.vocab, 'tokens');
    return { prompt: text.tokenizer.decode(Int32Array.from(body.tokens), { skipSpecial: false }) };
  });
}
