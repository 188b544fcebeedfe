/**
 * What the generation endpoints answer, for the OpenAPI document. These schemas describe; they do not cut: replies
 * are written with JSON.stringify (toJson), so that a field missing here still reaches the client.
 */
import { Type, type TSchema } from 'typebox';

const count = (description: string) => Type.Integer({ minimum: 0, description });

export const ErrorReply = Type.Object({
  error: Type.Object({
    message: Type.String(),
    type: Type.String(),
    param: Type.Unsafe<string | null>({ type: ['string', 'null'] }),
    code: Type.Unsafe<string | null>({ type: ['string', 'null'] }),
  }),
});

const Usage = Type.Object({
  prompt_tokens: count('Of all prompts.'),
  completion_tokens: count('Of all choices, end-of-text tokens included.'),
  total_tokens: count('Their sum.'),
  prompt_tokens_details: Type.Object({ cached_tokens: count('Prompt tokens that the prefix cache had.') }),
  completion_tokens_details: Type.Object({
    reasoning_tokens: count('0'),
    accepted_prediction_tokens: count('Drafted tokens that were accepted.'),
    rejected_prediction_tokens: count('Drafted tokens that were not.'),
  }),
});

const Metrics = Type.Object({
  attention: Type.Object({}, { additionalProperties: true, description: 'The attention settings that were applied.' }),
  exactness: Type.Unsafe<string>({ type: 'string', enum: ['exact', 'approximate'] }),
  exactness_reason: Type.Unsafe<string | null>({ type: ['string', 'null'] }),
}, {
  additionalProperties: true,
  description: 'What was done: times in milliseconds (the longest of the choices), tokens and preemptions (their sums; an end-of-text token is not counted as generated), tokens and pages read per decode step (their means); choices holds each one\'s own when there are several. In a stream it stands in the usage chunk, else in the last chunk.',
});

function Answer(object: string): TSchema {
  return Type.Object({
    id: Type.String(),
    object: Type.Unsafe<string>({ type: 'string', const: object }),
    created: Type.Integer(),
    model: Type.String(),
    system_fingerprint: Type.String(),
    choices: Type.Array(Type.Object({ index: Type.Integer(), finish_reason: Type.String() }, { additionalProperties: true })),
    usage: Usage,
    metrics: Metrics,
  }, { additionalProperties: true, description: 'The answer; with stream, server-sent events that end with [DONE].' });
}

/** Replies of a generation endpoint by status. */
export function generationReplies(object: string): Record<string, TSchema> {
  return { 200: Answer(object), '4xx': ErrorReply, '5xx': ErrorReply };
}

/** Fastify's serializerCompiler for these routes. */
export const toJson = () => (reply: unknown): string => JSON.stringify(reply);
