/** A whole application for one test, with the bundled model's tokenizer and any engine; closes itself. */
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { onTestFinished } from 'vitest';
import { loadConfig } from '../../config/load.ts';
import { Admission } from '../../server/admission.ts';
import { buildApp } from '../../server/app.ts';
import type { EngineClient } from '../../server/generation.ts';
import { Lifecycle } from '../../server/lifecycle.ts';
import { Metrics } from '../../server/metrics.ts';
import { readServedModel } from '../../server/served-model.ts';
import type { Services } from '../../server/services.ts';
import { openRetrieval } from '../../retrieval/retrieval-service.ts';
import { openTextService } from '../../tokenizer/text-service.ts';

export const folder = fileURLToPath(new URL('../../models/longspan-16m', import.meta.url));
export const MODEL = 'longspan-16m';

export interface Testbed {
  readonly app: FastifyInstance;
  readonly services: Services;
  /** Listens on a free port and gives http://127.0.0.1:port. */
  listen(): Promise<string>;
}

export async function testbed(engine: EngineClient, flags: readonly string[] = []): Promise<Testbed> {
  const config = loadConfig({ argv: ['--log-level', 'silent', ...flags], env: {} });
  const text = await openTextService(folder, { maxThreads: 1 });
  const retrieval = await openRetrieval({ dir: folder, embeddingDir: '', threads: 1 });
  const metrics = new Metrics(MODEL);
  const services: Services = {
    config, engine, text, retrieval, metrics,
    model: await readServedModel({ folder, name: '', maxModelLen: config.maxModelLen, eosId: text.tokenizer.eosId, engine }),
    admission: new Admission({ engine, limits: config, onRefused: (reason) => { metrics.refused(reason); } }),
    lifecycle: new Lifecycle(),
  };
  const app = await buildApp(services);
  onTestFinished(async () => {
    // Clients open connections ahead of requests; a server waits a minute for the first byte on these.
    app.server.closeAllConnections();
    await app.close();
    await engine.close();
    await text.close();
    await retrieval.close();
    metrics.close();
  });
  return { app, services, listen: () => app.listen({ port: 0, host: '127.0.0.1' }) };
}
