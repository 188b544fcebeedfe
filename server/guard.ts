/**
 * What every request passes before its route: its id, the count of what is under way, the drain, the API key. Also
 * what is noted when it ends. Knows no route beyond the list of open paths. Installed by app.ts.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type ApiKeys, OPEN_TENANT } from './api-keys.ts';
import { ApiError, apiError } from './errors.ts';
import type { Services } from './services.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Whom fair queueing counts this request for: the name of its API key. */
    tenant: string;
  }
}

/** What load balancers, scrapers and operators ask: open without a key, answered during a drain, not counted, not logged. */
const operatorPaths: ReadonlySet<string> = new Set(['/health', '/ready', '/version', '/metrics']);
/** Open without a key too: says nothing that the source does not say. */
const publicPaths: ReadonlySet<string> = new Set([...operatorPaths, '/openapi.json']);

/** The client's x-request-id if it is sane, else a new one. */
export function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : `req_${randomUUID().replaceAll('-', '')}`;
}

export function installGuard(app: FastifyInstance, services: Services, keys: ApiKeys): void {
  app.decorateRequest('tenant', OPEN_TENANT);
  app.addHook('onRequest', (request, reply, next) => {
    void reply.header('x-request-id', request.id);
    const path = request.routeOptions.url ?? '';
    if (!operatorPaths.has(path)) follow(request, reply, services);
    const refusal = publicPaths.has(path) ? null : refusalOf(request, services, keys);
    if (refusal !== null) services.metrics.refused(refusal.code);
    next(refusal ?? undefined);
  });
}

/** Why the request may not go on, or null; sets its tenant. */
function refusalOf(request: FastifyRequest, { lifecycle }: Services, keys: ApiKeys): ApiError | null {
  const tenant = keys.count === 0 ? OPEN_TENANT : tenantOf(request, keys);
  if (tenant instanceof ApiError) return tenant;
  request.tenant = tenant;
  return lifecycle.draining ? apiError('shutting_down', {}, { retryAfterMs: 5000 }) : null;
}

function tenantOf(request: FastifyRequest, keys: ApiKeys): string | ApiError {
  const secret = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
  if (secret === undefined) return apiError('missing_api_key', {});
  return keys.tenantOf(secret) ?? apiError('invalid_api_key', {});
}

/** Counts and logs the exchange. 'close' comes also when the client leaves early, unlike Fastify's onResponse. */
function follow(request: FastifyRequest, reply: FastifyReply, { lifecycle, metrics, config }: Services): void {
  const startedMs = performance.now();
  lifecycle.begin();
  reply.raw.once('close', () => {
    lifecycle.end();
    const exchange = {
      handler: request.routeOptions.url ?? 'none',
      method: request.method,
      status: reply.raw.writableFinished ? reply.raw.statusCode : 499,
      seconds: (performance.now() - startedMs) / 1000,
      requestBytes: Number(request.headers['content-length'] ?? 0),
      responseBytes: Number(reply.raw.getHeader('content-length') ?? 0),
    };
    metrics.exchange(exchange);
    if (config.accessLog) request.log.info({ ...exchange, tenant: request.tenant }, 'request');
  });
}
