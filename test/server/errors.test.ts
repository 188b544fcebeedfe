/** The table of errors, its document, and how whatever is thrown becomes OpenAI's body. */
import { readFileSync } from 'node:fs';
import fastify, { type FastifyInstance } from 'fastify';
import { describe, expect, it } from 'vitest';
import { errorsDocument } from '../../server/describe-errors.ts';
import { frameworkError, installErrorReplies } from '../../server/error-replies.ts';
import { ApiError, type ErrorBody, apiError, errorTable, failureError, toApiError } from '../../server/errors.ts';
import { validationError } from '../../server/validation-errors.ts';

describe('the table', () => {
  it('docs/errors.md is what the table says (npm run docs)', () => {
    expect(readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')).toBe(errorsDocument());
  });

  it('and its document name the same codes', () => {
    const documented = [...errorsDocument().matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1]);
    expect(documented).toEqual(Object.keys(errorTable));
  });

  it('fills every sentence, and refuses to leave a gap', () => {
    expect(apiError('model_not_found', { model: 'x/y' }).message).toBe('The model `x/y` does not exist or you do not have access to it.');
    expect(() => new ApiError('model_not_found', {})).toThrow(/needs a value for model/);
  });

  it('has an error for every failure of the engine', () => {
    for (const code of ['deadline_exceeded', 'kv_capacity', 'engine_failed', 'shutting_down', 'aborted'] as const) {
      expect(failureError(code, 'because.').code).toBe(code);
    }
    expect(failureError('engine_failed', 'at native code 0x1234').message).not.toContain('0x1234');
  });

  it('keeps what is not an ApiError inside', () => {
    expect(toApiError(new TypeError('secret detail')).message).not.toContain('secret');
    expect(toApiError('thrown text').status).toBe(500);
  });
});

const schema = {
  body: {
    type: 'object',
    required: ['messages'],
    properties: {
      messages: {
        type: 'array', minItems: 1, maxItems: 2,
        items: { type: 'object', required: ['role'], properties: { role: { type: 'string', minLength: 1, maxLength: 4 }, content: { type: ['string', 'array', 'null'] } } },
      },
      temperature: { type: ['number', 'null'], minimum: 0, maximum: 2 },
      n: { type: 'integer', minimum: 1, maximum: 16 },
      mode: { type: 'string', enum: ['dense', 'lserve'] },
      strict: { type: 'object', additionalProperties: false, properties: { 'a/b': { type: 'integer' } } },
    },
  },
};

async function echo(): Promise<FastifyInstance> {
  const app = fastify({ bodyLimit: 500, frameworkErrors: frameworkError, ajv: { customOptions: { removeAdditional: false, coerceTypes: false, verbose: true, allowUnionTypes: true } } });
  app.removeContentTypeParser('text/plain');
  installErrorReplies(app);
  app.post('/echo', { schema }, ({ body }) => body);
  app.get('/things/*', () => 'thing');
  app.get('/broken', () => { throw new Error('the secret of the stack'); });
  app.get('/busy', () => { throw apiError('queue_full', { got: 9, limit: 8, seconds: 3 }, { retryAfterMs: 2500 }); });
  await app.ready();
  return app;
}

async function refusal(body: unknown): Promise<ErrorBody['error']> {
  const app = await echo();
  const response = await app.inject({ method: 'POST', url: '/echo', payload: body as object });
  expect(response.statusCode).toBe(400);
  expect(response.headers['x-should-retry']).toBe('false');
  return response.json<ErrorBody>().error;
}

const ok = { role: 'user' };

describe('a body that breaks its schema', () => {
  it.each([
    [{}, 'missing_required_parameter', 'messages', "Missing required parameter: 'messages'."],
    [{ messages: [{}] }, 'missing_required_parameter', 'messages[0].role', "Missing required parameter: 'messages[0].role'."],
    [{ messages: 'hi' }, 'invalid_type', 'messages', "Invalid type for 'messages': expected an array, but got a string instead."],
    [{ messages: [ok, { role: 'user', content: 3 }] }, 'invalid_type', 'messages[1].content', "Invalid type for 'messages[1].content': expected a string or an array, but got an integer instead."],
    [{ messages: [ok], temperature: 'hot' }, 'invalid_type', 'temperature', "Invalid type for 'temperature': expected a decimal, but got a string instead."],
    [{ messages: [ok], temperature: 3 }, 'decimal_above_max_value', 'temperature', "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead."],
    [{ messages: [ok], temperature: -1 }, 'decimal_below_min_value', 'temperature', "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead."],
    [{ messages: [ok], n: 0 }, 'integer_below_min_value', 'n', "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."],
    [{ messages: [ok], n: 17 }, 'integer_above_max_value', 'n', "Invalid 'n': integer above maximum value. Expected a value <= 16, but got 17 instead."],
    [{ messages: [ok], n: 1.5 }, 'invalid_type', 'n', "Invalid type for 'n': expected an integer, but got a decimal instead."],
    [{ messages: [] }, 'empty_array', 'messages', "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an array with length 0 instead."],
    [{ messages: [ok, ok, ok] }, 'array_above_max_length', 'messages', "Invalid 'messages': array too long. Expected an array with maximum length 2, but got an array with length 3 instead."],
    [{ messages: [{ role: 'users' }] }, 'string_above_max_length', 'messages[0].role', "Invalid 'messages[0].role': string too long. Expected a string with maximum length 4, but got a string with length 5 instead."],
    [{ messages: [{ role: '' }] }, 'empty_string', 'messages[0].role', "Invalid 'messages[0].role': string too short. Expected a string with minimum length 1, but got a string with length 0 instead."],
    [{ messages: [ok], mode: 'fast' }, 'invalid_value', 'mode', "Invalid value for 'mode': supported values are 'dense', 'lserve', but got \"fast\"."],
    [{ messages: [ok], strict: { atention: 1 } }, 'unknown_parameter', 'strict.atention', "Unknown parameter: 'strict.atention'."],
    [{ messages: [ok], strict: { 'a/b': 'x' } }, 'invalid_type', 'strict.a/b', "Invalid type for 'strict.a/b': expected an integer, but got a string instead."],
    [[1], 'invalid_request', null, 'The request is malformed: the body must be a JSON object.'],
  ])('%j is told as OpenAI tells it', async (body, code, param, message) => {
    expect(await refusal(body)).toEqual({ code, param, message, type: 'invalid_request_error' });
  });

  it('says what ajv says when the rule has no words of its own', () => {
    const error = validationError({ keyword: 'pattern', instancePath: '/a', params: {}, message: 'must match pattern "x"', data: 'y' });
    expect(error.message).toBe("Invalid value for 'a': it must match pattern \"x\".");
  });
});

describe('a request that never reaches its handler', () => {
  it.each([
    ['text that is not JSON', { method: 'POST', url: '/echo', headers: { 'content-type': 'application/json' }, payload: '{"messages": [' }, 400, 'invalid_json'],
    ['an empty JSON body', { method: 'POST', url: '/echo', headers: { 'content-type': 'application/json' }, payload: '' }, 400, 'invalid_json'],
    ['no body at all', { method: 'POST', url: '/echo' }, 400, 'invalid_request'],
    ['a form', { method: 'POST', url: '/echo', headers: { 'content-type': 'application/x-www-form-urlencoded' }, payload: 'a=1' }, 415, 'unsupported_media_type'],
    ['plain text', { method: 'POST', url: '/echo', headers: { 'content-type': 'text/plain' }, payload: '{}' }, 415, 'unsupported_media_type'],
    ['a body that is too large', { method: 'POST', url: '/echo', payload: { messages: ['x'.repeat(600)] } }, 413, 'request_too_large'],
    ['an unknown path', { method: 'GET', url: '/v2/none?q=1' }, 404, 'unknown_url'],
    ['a path that cannot be decoded', { method: 'GET', url: '/things/%zz' }, 400, 'invalid_request'],
    ['a wrong method', { method: 'GET', url: '/echo' }, 405, 'method_not_supported'],
    ['a wrong method below a wildcard', { method: 'DELETE', url: '/things/a/b' }, 405, 'method_not_supported'],
  ] as const)('%s is answered with a code', async (_, request, status, code) => {
    const app = await echo();
    const response = await app.inject(request);
    expect([response.statusCode, response.json<ErrorBody>().error.code]).toEqual([status, code]);
    expect(response.headers['content-type']).toContain('application/json');
  });

  it('a wrong method names the right ones', async () => {
    const app = await echo();
    const response = await app.inject({ method: 'DELETE', url: '/echo' });
    expect(response.headers.allow).toBe('POST');
    expect(response.json<ErrorBody>().error.message).toBe('Not allowed to DELETE on /echo; it answers POST.');
  });
});

describe('what a handler throws', () => {
  it('that is no ApiError is a 500 without its text', async () => {
    const app = await echo();
    const response = await app.inject('/broken');
    expect(response.statusCode).toBe(500);
    expect(response.body).not.toContain('secret');
    expect(response.json<ErrorBody>().error).toMatchObject({ type: 'server_error', code: 'internal_error', param: null });
  });

  it('that can be retried says when, in seconds and in milliseconds', async () => {
    const app = await echo();
    const { headers, statusCode } = await app.inject('/busy');
    expect([statusCode, headers['retry-after'], headers['retry-after-ms'], headers['x-should-retry']]).toEqual([429, '3', '2500', undefined]);
  });
});
