/** Every route of the server, one line each; the OpenAPI document first, since it describes what follows. Called by server/app.ts. */
import type { FastifyInstance } from 'fastify';
import { packageVersion } from '../server/package.ts';
import type { Services } from '../server/services.ts';
import { chatCompletionsRoute } from './chat-completions.ts';
import { completionsRoute } from './completions.ts';
import { detokenizeRoute } from './detokenize.ts';
import { healthRoutes } from './health.ts';
import { metricsRoute } from './metrics.ts';
import { modelsRoutes } from './models.ts';
import { openapiRoute } from './openapi.ts';
import { tokenizeRoute } from './tokenize.ts';
import { versionRoute } from './version.ts';

export async function registerRoutes(app: FastifyInstance, services: Services): Promise<void> {
  await openapiRoute(app, { version: packageVersion() });
  chatCompletionsRoute(app, services);
  completionsRoute(app, services);
  tokenizeRoute(app, services);
  detokenizeRoute(app, services);
  modelsRoutes(app, services);
  healthRoutes(app, services);
  versionRoute(app);
  metricsRoute(app, services);
}
