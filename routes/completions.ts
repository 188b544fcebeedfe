/** POST /v1/completions: what raw prompts ask, in the terms of server/generate. Knows no tokens and no sockets. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance } from 'fastify';
import { apiError } from '../server/errors.ts';
import type { GenerationCall } from '../server/generate/call.ts';
import { CompletionFormat } from '../server/generate/completion-format.ts';
import { generate } from '../server/generate/generate.ts';
import { completionPrompts } from '../server/generate/prompts.ts';
import type { Services } from '../server/services.ts';
import { noteIgnored } from './ignored-parameters.ts';
import { CompletionBody } from './schemas-completions.ts';
import { generationReplies, toJson } from './schemas-replies.ts';

/** OpenAI's default of this endpoint. */
const DEFAULT_MAX_TOKENS = 16;

export function completionsRoute(app: FastifyInstance, services: Services): void {
  const schema = { summary: 'Continue texts', tags: ['generation'], body: CompletionBody, response: generationReplies('text_completion') };
  app.withTypeProvider<TypeBoxTypeProvider>().post('/v1/completions', { schema, serializerCompiler: toJson }, (request, reply) => {
    refuseUnsupported(request.body);
    noteIgnored(reply, request.body, CompletionBody);
    return generate(services, request, reply, completionCall(request.body, services));
  });
}

function completionCall(body: CompletionBody, { text }: Services): GenerationCall {
  const logprobs = body.logprobs ?? null;
  const echo = body.echo ?? false;
  const logprobStart = body.logprob_start_len ?? 0;
  return {
    body,
    prompts: completionPrompts(body.prompt),
    idPrefix: 'cmpl',
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs,
    promptLogprobsFrom: echo && logprobs !== null ? Math.max(1, logprobStart) : null,
    format: new CompletionFormat(text.tokenizer, { echo, logprobs: logprobs !== null, logprobStart, tokenIds: body.return_token_ids ?? false }),
  };
}

function refuseUnsupported(body: CompletionBody): void {
  if ((body.suffix ?? '') !== '') throw apiError('unsupported_parameter', { param: 'suffix', reason: 'Text cannot be inserted before a suffix.' });
  if ((body.best_of ?? body.n ?? 1) !== (body.n ?? 1)) throw apiError('unsupported_value', { param: 'best_of', reason: 'It must be equal to n.' });
  if (body.max_tokens === 0 && body.echo !== true) throw apiError('integer_below_min_value', { param: 'max_tokens', limit: 1, got: 0 });
}
