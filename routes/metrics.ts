/** GET /metrics: the Prometheus text. */
import type { FastifyInstance } from 'fastify';
import type { Services } from '../server/services.ts';

export function metricsRoute(app: FastifyInstance, { metrics }: Services): void {
  app.get('/metrics', { schema: { summary: 'Prometheus metrics', tags: ['operation'] } }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.text()));
}
