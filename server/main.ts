/**
 * The process: the only file that reads the command line, listens, and exits. Starts the engine process and the
 * application, says what it chose, drains on SIGTERM and SIGINT. Run by bin/longspan.mjs.
 */
import type { AddressInfo } from 'node:net';
import { availableParallelism } from 'node:os';
import type { FastifyInstance } from 'fastify';
import { helpText } from '../config/describe.ts';
import { ConfigError, loadConfig } from '../config/load.ts';
import type { Config } from '../config/options.ts';
import { ApiKeys } from './api-keys.ts';
import { buildApp } from './app.ts';
import { chooseThreads, engineOptions, startSummary } from './choices.ts';
import { createServices, draftFolder, modelFolder } from './create-services.ts';
import { SupervisedEngine } from './engine-client.ts';
import { engineProcess } from './engine-process.ts';
import { packageVersion } from './package.ts';
import type { Services } from './services.ts';
import { drain } from './shutdown.ts';

const EXIT_START_FAILED = 1;
const EXIT_BAD_OPTION = 2;
/** npm passes a Ctrl-C on to a process that the terminal has told already: two signals that are one. */
const SAME_SIGNAL_MS = 500;

/** Runs the program until the process ends. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    const config = loadConfig({ argv, env: process.env });
    if (config.help) print(helpText().trimEnd());
    else if (config.version) print(packageVersion());
    else await serve(config);
  } catch (error) {
    process.stderr.write(`longspan: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(error instanceof ConfigError ? EXIT_BAD_OPTION : EXIT_START_FAILED);
  }
}

async function serve(config: Config): Promise<void> {
  const folder = modelFolder(config);
  const keys = ApiKeys.load(config);
  const threads = chooseThreads(config.threads, availableParallelism());
  print(`Longspan ${packageVersion()} loads ${folder}`);
  const engine = new SupervisedEngine({ start: engineProcess(engineOptions(config, { folder, draftFolder: draftFolder(config), threads: threads.value })) });
  const services = await createServices(config, engine);
  const app = await buildApp(services, keys);
  reportDeaths(engine, services, app);
  drainOnSignal(app, services);
  const url = await listen(app, config);
  if (!(await becomesReady(services))) return;
  for (const line of startSummary(services, { threads, numKeys: keys.count })) print(`  ${line}`);
  print(`Ready on ${url}`);
}

/** False when a signal came first: the drain ends the process. Rejects with the reason when the engine cannot start. */
async function becomesReady({ engine, lifecycle }: Services): Promise<boolean> {
  try {
    await engine.whenReady();
    return true;
  } catch (error) {
    if (lifecycle.draining) return false;
    throw error;
  }
}

/** Resolves with the URL of the API. */
async function listen(app: FastifyInstance, { host, port }: Config): Promise<string> {
  const { level } = app.log;
  try {
    app.log.level = 'silent'; // Fastify would log the address, which is printed in the end.
    await app.listen({ host, port });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new Error(code === 'EADDRINUSE' ? `port ${port} of ${host} is in use; --port takes another.` : `cannot listen on ${host}:${port} (${code}).`);
  } finally {
    app.log.level = level;
  }
  const bound = app.server.address() as AddressInfo;
  const shownHost = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return `http://${shownHost}:${bound.port}/v1`;
}

function reportDeaths(engine: SupervisedEngine, { lifecycle, metrics }: Services, app: FastifyInstance): void {
  engine.onDown((reason, state) => {
    if (lifecycle.draining || engine.spec === null) return; // our own doing; or main's error at start
    app.log.error({ reason, state }, 'the engine is down');
    if (state === 'restarting') metrics.engineRestarted();
  });
}

function drainOnSignal(app: FastifyInstance, services: Services): void {
  let firstAtMs: number | null = null;
  const onSignal = (signal: string): void => {
    if (firstAtMs !== null) {
      if (performance.now() - firstAtMs > SAME_SIGNAL_MS) process.exit(EXIT_START_FAILED);
      return;
    }
    firstAtMs = performance.now();
    const { drainSeconds } = services.config;
    print(`${signal}: finishing ${services.lifecycle.active} requests within ${drainSeconds} s; a second signal ends at once`);
    void drain(app, services, drainSeconds * 1000).then(
      () => process.exit(0),
      (error: unknown) => {
        app.log.fatal({ err: error }, 'the drain failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
