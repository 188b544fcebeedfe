/**
 * Entry of the engine process: builds the engine from the options in argv[2] (JSON), then passes messages
 * between the parent process and an EngineHost. Ends on 'close', when the parent goes, and after 'fatal'.
 */
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

async function buildEngine(): Promise<Engine | null> {
  try {
    return await createEngine(options);
  } catch (error) {
    send({ type: 'fatal', message: error instanceof Error ? error.message : String(error) });
    return null;
  }
}

process.once('disconnect', () => process.exit(0));
// Signals sent to the whole group are the parent's to handle: it drains, then closes this process.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => undefined);
const engine = await buildEngine();
if (engine !== null) {
  const host = new EngineHost({ engine, options, send });
  process.on('message', (message) => { host.receive(message as ToEngine); });
  await host.closed;
}
await lastSent;
process.exit(engine === null ? 1 : 0);
