/** An application over a scripted engine and the bundled model's tokenizer, for one test; closes itself. */
import type { FastifyInstance } from 'fastify';
import { onTestFinished } from 'vitest';
import { loadConfig } from '../../config/load.ts';
import { buildApp } from '../../server/app.ts';
import { createServices } from '../../server/create-services.ts';
import type { Services } from '../../server/services.ts';
import { type Scripted, scripted } from './scripted-engine.ts';

export interface TestApp {
  readonly app: FastifyInstance;
  readonly services: Services;
  readonly script: Scripted;
}

export async function build(flags: readonly string[] = []): Promise<TestApp> {
  const script = scripted();
  const config = loadConfig({ argv: ['--log-level', 'silent', '--tokenizer-threads', '1', ...flags], env: {} });
  const services = await createServices(config, script.engine);
  const app = await buildApp(services);
  onTestFinished(async () => {
    await app.close();
    await script.engine.close();
    await services.text.close();
    await services.retrieval.close();
    services.metrics.close();
  });
  return { app, services, script };
}
