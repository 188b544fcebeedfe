/** GET /version: of this program. */
import type { FastifyInstance } from 'fastify';
import { packageVersion } from '../server/package.ts';

export function versionRoute(app: FastifyInstance): void {
  const version = packageVersion();
  app.get('/version', { schema: { summary: 'Version of the server', tags: ['operation'] } }, () => ({ version }));
}
