/**
 * buildApp: the services -> a Fastify application with every route. Opens no port, reads no configuration but what
 * it is given, keeps no globals: a test builds one per case. Called by main.ts.
 */
import cors from '@fastify/cors';
import fastify, { LogController, type FastifyInstance } from 'fastify';
import { registerRoutes } from '../routes/register.ts';
import { ApiKeys } from './api-keys.ts';
import { frameworkError, installErrorReplies } from './error-replies.ts';
import { installGuard, requestId } from './guard.ts';
import { answerParserError } from './parser-errors.ts';
import type { Services } from './services.ts';

/** Longer than the idle time of common load balancers (60 s), so that they close first. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
/** A client must have sent its whole request within this. */
const RECEIVE_TIMEOUT_MS = 300_000;

/** Throws when the file of API keys cannot be read, unless `keys` are given. */
export async function buildApp(services: Services, keys = ApiKeys.load(services.config)): Promise<FastifyInstance> {
  const { config } = services;
  const app = fastify({
    logger: { level: config.logLevel },
    logController: new LogController({ disableRequestLogging: true }), // guard.ts writes one line a request
    genReqId: requestId,
    bodyLimit: config.bodyLimitBytes,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    requestTimeout: RECEIVE_TIMEOUT_MS,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    frameworkErrors: frameworkError,
    clientErrorHandler: answerParserError,
    // Verbose errors carry the offending value, which validation-errors.ts words.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: false, verbose: true, allowUnionTypes: true } },
  });
  app.removeContentTypeParser('text/plain');
  installErrorReplies(app);
  if (config.corsOrigin.length > 0) await app.register(cors, corsOptions(config.corsOrigin));
  installGuard(app, services, keys);
  await registerRoutes(app, services);
  return app;
}

function corsOptions(origins: readonly string[]) {
  return {
    origin: origins.includes('*') ? '*' : [...origins],
    methods: ['GET', 'HEAD', 'POST'],
    exposedHeaders: ['x-request-id', 'retry-after', 'retry-after-ms', 'x-should-retry', 'x-longspan-ignored-parameters'],
  };
}
