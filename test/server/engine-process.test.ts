/** The engine client over a real child process with the fake engine: it works, and it survives a SIGKILL under load. */
import { execFileSync } from 'node:child_process';
import { expect, it, onTestFinished } from 'vitest';
import { loadConfig } from '../../config/load.ts';
import { engineOptions } from '../../server/choices.ts';
import { SupervisedEngine } from '../../server/engine-client.ts';
import { engineProcess } from '../../server/engine-process.ts';
import { packagePath } from '../../server/package.ts';
import { endings, readAll, request } from './scripted-engine.ts';

async function forked(...flags: string[]): Promise<SupervisedEngine> {
  const config = loadConfig({ argv: ['--engine', 'fake', ...flags], env: {} });
  const engine = new SupervisedEngine({ start: engineProcess(engineOptions(config, { folder: packagePath('models/longspan-16m'), draftFolder: '', threads: 1 })) });
  onTestFinished(() => engine.close());
  await engine.whenReady();
  return engine;
}

/** Process ids of this process's engine processes. */
function enginePids(): number[] {
  const table = execFileSync('ps', ['-e', '-o', 'pid=,ppid=,args='], { encoding: 'utf8' });
  return table.split('\n').map((line) => line.trim().split(/\s+/))
    .filter(([, parent, ...args]) => Number(parent) === process.pid && args.some((arg) => arg.endsWith('scheduler/process.ts')))
    .map(([pid]) => Number(pid));
}

it('answers requests and gives every page back', async () => {
  const engine = await forked();
  const all = await Promise.all(Array.from({ length: 20 }, () => readAll(engine.submit(request({ maxTokens: 50, choices: 2 })))));
  for (const events of all) expect(endings(events).sort()).toEqual(['0 length', '1 length']);
  await expect.poll(() => engine.gauges.pagesHeld).toBe(0);
});

it('cancelled in mid-generation, 200 requests leave nothing behind', async () => {
  const engine = await forked('--fake-step-ms', '1');
  const generations = Array.from({ length: 200 }, () => engine.submit(request({ maxTokens: 100_000 })));
  await expect.poll(() => engine.gauges.runningSequences).toBe(64);
  for (const generation of generations) generation.cancel();
  await expect.poll(() => [engine.gauges.runningSequences, engine.gauges.waitingSequences, engine.gauges.pagesHeld]).toEqual([0, 0, 0]);
  expect(engine.queued).toEqual({ requests: 0, tokens: 0 });
  expect(endings(await readAll(engine.submit(request())))).toEqual(['0 length']);
});

it('killed under load, it fails what runs, starts again by itself and serves; no request hangs', async () => {
  const engine = await forked('--fake-step-ms', '1');
  const running = Array.from({ length: 100 }, () => readAll(engine.submit(request({ maxTokens: 100_000 }))));
  await expect.poll(() => engine.gauges.runningSequences).toBe(64);
  const [pid] = enginePids();
  process.kill(pid!, 'SIGKILL');
  for (const events of await Promise.all(running)) expect(endings(events)).toEqual(['0 engine_failed']);
  expect(engine.state).toBe('restarting');
  await engine.whenReady();
  expect(enginePids()).not.toContain(pid);
  expect(endings(await readAll(engine.submit(request())))).toEqual(['0 length']);
});

it('says why an engine cannot be built', async () => {
  await expect(forked('--engine', 'onnx', '--precision', 'fp8')).rejects.toThrow(/onnx engine .* 'fp8'/);
});
