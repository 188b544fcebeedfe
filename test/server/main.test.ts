/** The program as a person starts it: bin/longspan.mjs with the fake engine, over a real socket and real signals. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { describe, expect, it, onTestFinished } from 'vitest';
import { packagePath } from '../../server/package.ts';

interface Started {
  readonly child: ChildProcess;
  readonly output: () => string;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | string | null>;
}

/** In another folder than the package's, as a person may. */
function start(...flags: string[]): Started {
  const child = spawn(process.execPath, [packagePath('bin/longspan.mjs'), ...flags], { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  child.stderr.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  onTestFinished(() => { child.kill('SIGKILL'); });
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string | null);
  return { child, output: () => output, ended };
}

async function ready(...flags: string[]): Promise<Started & { url: string }> {
  const started = start('--engine', 'fake', '--port', '0', '--tokenizer-threads', '1', ...flags);
  await expect.poll(started.output, { timeout: 20_000 }).toMatch(/Ready on /);
  return { ...started, url: /Ready on (http:\S+)\/v1/.exec(started.output())![1]! };
}

const completion = (url: string, changes: object) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'longspan-16m', prompt: 'Once', ignore_eos: true, ...changes }),
  });

describe('longspan', () => {
  it('serves: says what it chose, is ready, answers', async () => {
    const { url, output } = await ready();
    expect(output()).toMatch(/engine +fake/);
    expect(output()).toMatch(/threads \(/);
    expect(output()).not.toMatch(/^\{/m); // no line of JSON among those for a person
    expect((await fetch(`${url}/ready`)).status).toBe(200);
    const answer = await (await completion(url, { max_tokens: 3 })).json() as { usage: { completion_tokens: number } };
    expect(answer.usage.completion_tokens).toBe(3);
  });

  it('on SIGTERM turns /ready off, lets a running stream finish, and exits with 0', async () => {
    const { child, url, ended } = await ready('--fake-step-ms', '20');
    const stream = await completion(url, { max_tokens: 60, stream: true });
    child.kill('SIGTERM');
    await expect.poll(async () => (await fetch(`${url}/ready`)).status).toBe(503);
    const refused = await completion(url, { max_tokens: 1 });
    expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: 'shutting_down' } }]);
    const text = await stream.text();
    expect(text).toContain('"finish_reason":"length"');
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(await ended).toBe(0);
  });

  it('ends what outlasts the drain with a clear error', async () => {
    const { child, url, ended } = await ready('--fake-step-ms', '20', '--drain-seconds', '0.2');
    const stream = await completion(url, { max_tokens: 100_000, stream: true });
    child.kill('SIGTERM');
    expect(await stream.text()).toContain('"code":"shutting_down"');
    expect(await ended).toBe(0);
  });

  it('exits at once on a second signal', async () => {
    const { child, url, ended } = await ready('--fake-step-ms', '20');
    const stream = await completion(url, { max_tokens: 100_000, stream: true });
    child.kill('SIGINT');
    await expect.poll(async () => (await fetch(`${url}/ready`)).status).toBe(503);
    const again = setInterval(() => child.kill('SIGINT'), 100);
    onTestFinished(() => { clearInterval(again); });
    expect(await ended).toBe(1);
    await expect(stream.text()).rejects.toThrow();
  });
});

describe('longspan that cannot start says so in one sentence', () => {
  async function refusal(...flags: string[]): Promise<[unknown, string]> {
    const { output, ended } = start(...flags);
    return [await ended, output().split('\n').filter((line) => line.startsWith('longspan: ')).join('\n')];
  }

  it('a bad option: exit code 2', async () => {
    expect(await refusal('--prot', '1')).toEqual([2, 'longspan: --prot is not an option; did you mean --port?']);
  });

  it('a model folder that is not there', async () => {
    expect(await refusal('--model', '/no/such/model')).toEqual([1, 'longspan: the model folder /no/such/model does not exist.']);
  });

  it('a folder that holds no model', async () => {
    const [code, sentence] = await refusal('--model', packagePath('docs'));
    expect([code, sentence]).toEqual([1, `longspan: ${packagePath('docs')} is no model folder: it has no config.json.`]);
  });

  it('a key file that is not there', async () => {
    const [code, sentence] = await refusal('--api-keys-file', '/no/such/keys');
    expect([code, sentence]).toEqual([1, expect.stringContaining('/no/such/keys')]);
  });

  it('a port in use', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => { taken.close(); });
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    expect(await refusal('--engine', 'fake', '--port', String(port))).toEqual([1, `longspan: port ${port} of 127.0.0.1 is in use; --port takes another.`]);
  });

  it('an engine that cannot be built', async () => {
    const [code, sentence] = await refusal('--engine', 'onnx', '--precision', 'fp8', '--port', '0');
    expect([code, sentence]).toEqual([1, expect.stringMatching(/^longspan: .*onnx engine .* 'fp8'/)]);
  });

  it('--help and --version print and exit with 0', async () => {
    const help = start('--help');
    const version = start('--version');
    expect([await help.ended, await version.ended]).toEqual([0, 0]);
    expect(help.output()).toContain('--max-model-len');
    expect(version.output()).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
