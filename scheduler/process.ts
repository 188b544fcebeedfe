/**
 * Entry of the engine process: builds the engine from the options in argv[2] (JSON), then passes messages
 * between the parent process and an EngineHost. Ends on 'close', when the parent goes, and after 'fatal'.
 */
import { createEngines } from '../engine/create-engines.ts';
import { settleOptions } from '../engine/create.ts';
import { EngineHost } from './engine-host.ts';
import type { EngineProcessOptions, FromEngine, ToEngine } from './messages.ts';

let lastSent: Promise<void> = Promise.resolve();

/** A parent that has gone reads nothing more; 'disconnect' ends this process. */
function send(message: FromEngine): void {
  lastSent = new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => { resolve(); });
    else resolve();
  });
}

async function buildHost(): Promise<EngineHost | null> {
  try {
    const options = await settleOptions(JSON.parse(process.argv[2] ?? '{}') as EngineProcessOptions);
    return new EngineHost({ ...await createEngines(options), options, send });
  } catch (error) {
    send({ type: 'fatal', message: error instanceof Error ? error.message : String(error) });
    return null;
  }
}

process.once('disconnect', () => process.exit(0));
// Signals sent to the whole group are the parent's to handle: it drains, then closes this process.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => undefined);
const host = await buildHost();
if (host !== null) {
  process.on('message', (message) => { host.receive(message as ToEngine); });
  await host.closed;
}
await lastSent;
process.exit(host === null ? 1 : 0);
