/** POST /v1/chat/completions: what a conversation asks, in the terms of server/generate. Knows no tokens and no sockets. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance } from 'fastify';
import { apiError } from '../server/errors.ts';
import type { GenerationCall } from '../server/generate/call.ts';
import { ChatFormat } from '../server/generate/chat-format.ts';
import { generate } from '../server/generate/generate.ts';
import { chatPrompts } from '../server/generate/prompts.ts';
import type { Services } from '../server/services.ts';
import { noteIgnored } from './ignored-parameters.ts';
import { generationReplies, toJson } from './schemas-replies.ts';
import { ChatCompletionBody } from './schemas-chat.ts';

export function chatCompletionsRoute(app: FastifyInstance, services: Services): void {
  const schema = { summary: 'Answer a conversation', tags: ['generation'], body: ChatCompletionBody, response: generationReplies('chat.completion') };
  app.withTypeProvider<TypeBoxTypeProvider>().post('/v1/chat/completions', { schema, serializerCompiler: toJson }, (request, reply) => {
    refuseUnsupported(request.body);
    noteIgnored(reply, request.body, ChatCompletionBody);
    return generate(services, request, reply, chatCall(request.body, services));
  });
}

function chatCall(body: ChatCompletionBody, { text }: Services): GenerationCall {
  const logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : null;
  return {
    body,
    prompts: chatPrompts(body),
    idPrefix: 'chatcmpl',
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? null,
    logprobs,
    promptLogprobsFrom: null,
    format: new ChatFormat(text.tokenizer, { logprobs: logprobs !== null, tokenIds: body.return_token_ids ?? false }),
  };
}

function refuseUnsupported(body: ChatCompletionBody): void {
  const format = body.response_format?.type ?? 'text';
  if (format !== 'text') throw apiError('unsupported_parameter', { param: 'response_format', reason: "Only {\"type\": \"text\"} is offered so far." });
  if ((body.tools ?? []).length > 0) throw apiError('unsupported_parameter', { param: 'tools', reason: 'Tool calls are not offered so far.' });
  if (![undefined, null, 'none', 'auto'].includes(body.tool_choice as string | null | undefined)) {
    throw apiError('unsupported_parameter', { param: 'tool_choice', reason: 'Tool calls are not offered so far.' });
  }
  if ((body.top_logprobs ?? null) !== null && body.logprobs !== true) {
    throw apiError('invalid_value', { param: 'top_logprobs', reason: "it is only allowed when 'logprobs' is true." });
  }
}
