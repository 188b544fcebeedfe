/**
 * Entry of the engine process: builds the engine from the options in argv[2] (JSON), then passes messages
 * between the parent process and an EngineHost. Ends on 'close', when the parent goes, and after 'fatal'.
 */
import { createDraftEngine } from '../engine/create-draft.ts';
import { createEngine } from '../engine/create.ts';
import type { Engine } from '../engine/engine.ts';
import { EngineHost } from './engine-host.ts';
import type { EngineProcessOptions, FromEngine, ToEngine } from './messages.ts';

const options = JSON.parse(process.argv[2] ?? '{}') as EngineProcessOptions;
let lastSent: Promise<void> = Promise.resolve();

/** A parent that has gone reads nothing more; 'disconnect' ends this process. */
function send(message: FromEngine): void {
  lastSent = new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => { resolve(); });
    else resolve();
  });
}

async function buildEngines(): Promise<{ engine: Engine; draftEngine: Engine | null } | null> {
  try {
    const engine = await createEngine(options);
    return { engine, draftEngine: await createDraftEngine(options, engine.spec) };
  } catch (error) {
    send({ type: 'fatal', message: error instanceof Error ? error.message : String(error) });
    return null;
  }
}

process.once('disconnect', () => process.exit(0));
// Signals sent to the whole group are the parent's to handle: it drains, then closes this process.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => undefined);
const engines = await buildEngines();
if (engines !== null) {
  const host = new EngineHost({ ...engines, options, send });
  process.on('message', (message) => { host.receive(message as ToEngine); });
  await host.closed;
}
await lastSent;
process.exit(engines === null ? 1 : 0);
