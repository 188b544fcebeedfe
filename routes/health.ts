/**
 * GET /health: is the process worth keeping; 503 only when the engine is gone for good. GET /ready: may requests be
 * sent here now; 503 while the engine starts or restarts and during a drain.
 */
import type { FastifyInstance } from 'fastify';
import type { Services } from '../server/services.ts';

export function healthRoutes(app: FastifyInstance, services: Services): void {
  const { engine } = services;
  app.get('/health', { schema: { summary: 'Whether the server lives', tags: ['operation'] } }, (_request, reply) => {
    const alive = engine.state !== 'closed' || services.lifecycle.draining;
    return reply.code(alive ? 200 : 503).send({ status: alive ? 'ok' : 'failed', engine: engine.state });
  });

  app.get('/ready', { schema: { summary: 'Whether the server takes requests', tags: ['operation'] } }, (_request, reply) => {
    const reason = whyNotReady(services);
    return reason === null ? reply.send({ status: 'ready' }) : reply.code(503).send({ status: 'not_ready', reason });
  });
}

function whyNotReady({ engine, lifecycle }: Services): string | null {
  if (lifecycle.draining) return 'the server is shutting down';
  return engine.state === 'ready' ? null : `the engine is ${engine.state}`;
}
