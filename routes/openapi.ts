/**
 * GET /openapi.json: the document that @fastify/swagger makes of the routes' own schemas. Must be registered before
 * the routes that it describes.
 */
import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';

export interface ApiInfo {
  readonly version: string;
}

export async function openapiRoute(app: FastifyInstance, { version }: ApiInfo): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Longspan', version, description: 'OpenAI-compatible server for long contexts, with attention chosen per request.' },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
      security: [{}, { bearer: [] }],
    },
  });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
}
