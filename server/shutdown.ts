/**
 * The end of the server: the drain, in order. Signals, exit codes and limits are main.ts's.
 */
import type { FastifyInstance } from 'fastify';
import type { Services } from './services.ts';

/** How long answers that were cut off may take to reach their clients. */
const FAREWELL_MS = 2000;

/** New requests are refused at once; running ones may finish for `limitMs`, then fail with shutting_down. */
export async function drain(app: FastifyInstance, services: Services, limitMs: number): Promise<void> {
  const { lifecycle, engine, text, retrieval, metrics } = services;
  lifecycle.startDrain();
  const finished = await lifecycle.idleWithin(limitMs);
  if (!finished) app.log.warn({ requests: lifecycle.active }, 'the drain is over: running requests are ended');
  await engine.close();
  await lifecycle.idleWithin(FAREWELL_MS);
  const closed = app.close();
  app.server.closeAllConnections();
  await closed;
  await Promise.all([text.close(), retrieval.close()]);
  metrics.close();
}
