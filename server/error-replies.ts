/**
 * Anything that goes wrong in a request -> OpenAI's error body with its headers. Knows Fastify's own errors and the
 * table (errors.ts), no route. Installed by app.ts.
 */
import type { IncomingMessage } from 'node:http';
import { finished } from 'node:stream/promises';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError, apiError, toApiError, toErrorBody } from './errors.ts';
import { validationError } from './validation-errors.ts';

/** How long the rest of a body that is too large is read. */
const DISCARD_MS = 5000;

export function installErrorReplies(app: FastifyInstance): void {
  const methodsOf = recordMethods(app);
  app.setErrorHandler(async (error, request, reply) => {
    const answer = toClientError(error, request);
    if (answer.status === 500) request.log.error({ err: error, code: answer.code }, 'request failed');
    if (answer.code === 'request_too_large') await discardBody(request.raw);
    return sendError(reply, answer);
  });
  app.setNotFoundHandler((request, reply) => sendError(reply, notFound(request, reply, methodsOf(pathOf(request.url)))));
}

/** Most clients read no answer before their whole body is sent: a connection closed on them looks broken. */
async function discardBody(body: IncomingMessage): Promise<void> {
  body.resume();
  await finished(body, { signal: AbortSignal.timeout(DISCARD_MS) }).catch(() => undefined); // Gone or too slow: answered anyway.
}

/** For errors that Fastify finds before its hooks run, such as a path that cannot be decoded. */
export function frameworkError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  void sendError(reply.header('x-request-id', request.id), toClientError(error, request));
}

function sendError(reply: FastifyReply, error: ApiError): FastifyReply {
  return reply.code(error.status).headers(errorHeaders(error)).send(toErrorBody(error));
}

/** What the official clients read to decide whether and when to retry. */
function errorHeaders({ retry, retryAfterMs }: ApiError): Record<string, string> {
  return {
    ...(retry ? {} : { 'x-should-retry': 'false' }),
    ...(retryAfterMs === null ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1000)), 'retry-after-ms': String(retryAfterMs) }),
  };
}

/** Whatever was thrown, by a handler or by Fastify before it, as an error of ours. */
function toClientError(error: unknown, request: FastifyRequest): ApiError {
  return isFastifyError(error) ? fromFastify(error, request) : toApiError(error);
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && !(error instanceof ApiError) && ('validation' in error || 'statusCode' in error);
}

function fromFastify(error: FastifyError, request: FastifyRequest): ApiError {
  const violation = error.validation?.[0];
  if (violation !== undefined) return validationError(violation);
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE': return apiError('request_too_large', { limit: request.server.initialConfig.bodyLimit ?? 0 });
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE': return apiError('unsupported_media_type', {});
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY': return apiError('invalid_json', {});
  }
  const status = error.statusCode ?? 500;
  return status >= 400 && status < 500 ? apiError('invalid_request', { reason: error.message }) : toApiError(error);
}

function notFound(request: FastifyRequest, reply: FastifyReply, allowed: readonly string[]): ApiError {
  const values = { method: request.method, url: pathOf(request.url) };
  if (allowed.length === 0) return apiError('unknown_url', values);
  reply.header('allow', allowed.join(', '));
  return apiError('method_not_supported', { ...values, allow: allowed.join(', ') });
}

function pathOf(url: string): string {
  return url.split('?', 1)[0]!;
}

/** Remembers the routes as they are added, to tell a wrong method from a wrong path. */
function recordMethods(app: FastifyInstance): (path: string) => readonly string[] {
  const routes: { readonly pattern: RegExp; readonly methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    if (url === '*') return; // the CORS preflight route
    const escaped = url.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replace(/\*|:\w+/g, '.+');
    routes.push({ pattern: new RegExp(`^${escaped}$`), methods: [method].flat() });
  });
  return (path) => [...new Set(routes.filter(({ pattern }) => pattern.test(path)).flatMap(({ methods }) => methods))];
}
