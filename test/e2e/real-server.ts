/** A whole server in this process with a real engine behind the engine client. */
import type { FastifyInstance } from 'fastify';
import { expect } from 'vitest';
import { loadConfig } from '../../config/load.ts';
import { createEngines } from '../../engine/create-engines.ts';
import { settleOptions } from '../../engine/create.ts';
import { EngineHost } from '../../scheduler/engine-host.ts';
import { buildApp } from '../../server/app.ts';
import { engineOptions } from '../../server/choices.ts';
import { createServices, draftFolder, modelFolder } from '../../server/create-services.ts';
import { SupervisedEngine } from '../../server/engine-client.ts';
import type { StartEngine } from '../../server/engine-transport.ts';
import type { Config } from '../../config/options.ts';
import type { Services } from '../../server/services.ts';

export interface RealServer {
  readonly app: FastifyInstance;
  readonly services: Services;
  /** The JSON body of a 200 answer. */
  post<Body>(url: string, body: object): Promise<Body>;
  close(): Promise<void>;
}

/** `flags` as on the command line. One engine thread, so that tests share a machine. */
export async function realServer(...flags: string[]): Promise<RealServer> {
  const config = loadConfig({ argv: ['--log-level', 'silent', '--tokenizer-threads', '1', '--threads', '1', ...flags], env: {} });
  const engine = new SupervisedEngine({ start: startHere(config) });
  await engine.whenReady();
  const services = await createServices(config, engine);
  const app = await buildApp(services);
  const close = async (): Promise<void> => {
    await app.close();
    await engine.close();
    await services.text.close();
    await services.retrieval.close();
    services.metrics.close();
  };
  return { app, services, close, post: (url, body) => post(app, url, body) };
}

async function post<Body>(app: FastifyInstance, url: string, body: object): Promise<Body> {
  const answer = await app.inject({ method: 'POST', url, payload: body });
  expect(answer.statusCode, answer.body).toBe(200);
  return answer.json();
}

/** Scheduler and engine in this process; messages cross in later ticks, as they do between processes. */
function startHere(config: Config): StartEngine {
  return ({ onMessage, onExit }) => {
    const asked = engineOptions(config, { folder: modelFolder(config), draftFolder: draftFolder(config), threads: config.threads });
    const host = settleOptions(asked).then(async (options) => new EngineHost({
      ...await createEngines(options), options,
      send: (message) => { setImmediate(() => { onMessage(message); }); },
    }));
    host.then(({ closed }) => closed).then(
      () => { onExit('closed'); },
      (error: unknown) => { onExit(String(error)); },
    );
    return {
      send: (message) => { void host.then((live) => { setImmediate(() => { live.receive(message); }); }); },
      kill: () => { void host.then((live) => { live.receive({ type: 'close' }); }); },
    };
  };
}
