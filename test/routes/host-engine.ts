/** Scheduler and fake engine in this process, behind the real engine client. */
import { FakeEngine, type FakeEngineOptions } from '../../engine/fake/fake-engine.ts';
import { EngineHost } from '../../scheduler/engine-host.ts';
import { SupervisedEngine } from '../../server/engine-client.ts';
import type { StartEngine } from '../../server/engine-transport.ts';

const CONTEXT = 32_768;

/** Messages cross in later ticks, as they do between processes. */
export async function hostEngine(options: Partial<FakeEngineOptions> = {}, { maxSequences = 256 } = {}): Promise<SupervisedEngine> {
  const start: StartEngine = ({ onMessage, onExit }) => {
    const engine = new FakeEngine({ pages: 1024, vocab: 8192, contextLength: CONTEXT, avoid: [0, 1, 2, 3], ...options });
    let host: EngineHost | null = null;
    setImmediate(() => {
      host = new EngineHost({
        engine,
        options: { maxModelLen: CONTEXT, maxSequences, stepTokens: 512, targetGapMs: 100, prefixCache: true },
        send: (message) => { setImmediate(() => { onMessage(message); }); },
      });
      void host.closed.then(() => { setImmediate(() => { onExit('closed'); }); });
    });
    return {
      send: (message) => { setImmediate(() => { host?.receive(message); }); },
      kill: () => { host?.receive({ type: 'close' }); },
    };
  };
  const client = new SupervisedEngine({ start });
  await client.whenReady();
  return client;
}
