/** loadConfig: where values come from, which wins, and how bad ones are refused. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ConfigError, loadConfig } from '../../config/load.ts';
import { type Option, optionNames, options } from '../../config/options.ts';

const folder = mkdtempSync(join(tmpdir(), 'longspan-config-'));
afterAll(() => { rmSync(folder, { recursive: true }); });

function file(text: string): string {
  const path = join(folder, `${Math.random()}.yaml`);
  writeFileSync(path, text);
  return path;
}

const load = (argv: readonly string[], env: Record<string, string> = {}) => loadConfig({ argv, env });

function refusal(argv: readonly string[], env: Record<string, string> = {}): string {
  try {
    load(argv, env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error(`${argv.join(' ')} was accepted`);
}

describe('where a value comes from', () => {
  it('is the default when nothing is given, for every option, and the result is frozen', () => {
    const config = load([]);
    for (const name of optionNames) expect(config[name]).toEqual(options[name].default);
    expect(Object.isFrozen(config)).toBe(true);
  });

  it('has defaults that lie within their own bounds', () => {
    for (const name of optionNames) {
      const option: Option = options[name];
      if (option.kind === 'integer' || option.kind === 'number') {
        expect(option.default).toBeGreaterThanOrEqual(option.min);
        expect(option.default).toBeLessThanOrEqual(option.max);
      }
      if (option.kind === 'choice') expect(option.values).toContain(option.default);
    }
  });

  it('prefers the flag to the variable, the variable to the file, the file to the default', () => {
    const path = file('port: 1\nthreads: 1\nkv-tokens: 1\n');
    const config = load(['--config', path, '--port', '3'], { LONGSPAN_PORT: '2', LONGSPAN_THREADS: '2' });
    expect([config.port, config.threads, config.kvTokens, config.maxSequences]).toEqual([3, 2, 1, 64]);
  });

  it('takes the file that a variable names', () => {
    expect(load([], { LONGSPAN_CONFIG: file('port: 77') }).port).toBe(77);
  });

  it('reads file keys as flags, as variables and as the table write them', () => {
    const config = load(['--config', file('max-model-len: 1\nkv_tokens: 2\nmaxSequences: 3\ncors-origin: [http://a, http://b]\nprefix-cache: false')]);
    expect(config).toMatchObject({ maxModelLen: 1, kvTokens: 2, maxSequences: 3, corsOrigin: ['http://a', 'http://b'], prefixCache: false });
  });

  it('reads an empty file as no options', () => {
    expect(load(['--config', file('')]).port).toBe(8000);
  });

  it.each([
    [['--no-prefix-cache'], false],
    [['--prefix-cache=false'], false],
    [['--prefix-cache'], true],
    [['--no-prefix-cache', '--prefix-cache'], true],
  ])('turns a switch by %j', (argv, expected) => {
    expect(load(argv).prefixCache).toBe(expected);
  });

  it('splits lists at commas', () => {
    expect(load(['--cors-origin', 'http://a, http://b,']).corsOrigin).toEqual(['http://a', 'http://b']);
  });

  it('ignores the variables that Kubernetes sets for a service named longspan', () => {
    const env = { LONGSPAN_PORT: 'tcp://10.0.0.7:8000', LONGSPAN_SERVICE_HOST: '10.0.0.7', LONGSPAN_SERVICE_PORT: '8000', LONGSPAN_PORT_8000_TCP_ADDR: '10.0.0.7' };
    expect(load([], env).port).toBe(8000);
  });

  it.each([['-h'], ['--help']])('knows %s', (flag) => {
    expect(load([flag]).help).toBe(true);
  });
});

describe('what is refused, with one sentence', () => {
  it.each([
    [['--prot', '3'], '--prot is not an option; did you mean --port?'],
    [['--max-modellen=3'], '--max-modellen is not an option; did you mean --max-model-len?'],
    [['--quantum-entanglement'], '--quantum-entanglement is not an option; --help lists them all.'],
    [['--no-port'], '--no-port is not an option; did you mean --port?'],
    [['--port'], '--port needs a value.'],
    [['--port', '--host', 'x'], '--port needs a value.'],
    [['--port', 'abc'], '--port must be an integer from 0 to 65535, not "abc".'],
    [['--port', '70000'], '--port must be an integer from 0 to 65535, not "70000".'],
    [['--port', '80.5'], '--port must be an integer from 0 to 65535, not "80.5".'],
    [['--port', ''], '--port must be an integer from 0 to 65535, not "".'],
    [['--streaming-heads', '-0.1'], '--streaming-heads must be a number from 0 to 1, not "-0.1".'],
    [['--attention', 'sparse'], '--attention must be one of dense, streaming, lserve, not "sparse".'],
    [['--prefix-cache=perhaps'], '--prefix-cache must be true or false, not "perhaps".'],
    [['serve'], 'Unexpected argument "serve"; options start with --.'],
  ])('refuses %j', (argv, sentence) => {
    expect(refusal(argv)).toBe(sentence);
  });

  it('names the variable and the nearest one', () => {
    expect(refusal([], { LONGSPAN_KV_TOKEN: '3' })).toBe('LONGSPAN_KV_TOKEN is not an option; did you mean LONGSPAN_KV_TOKENS?');
    expect(refusal([], { LONGSPAN_THREADS: 'many' })).toBe('LONGSPAN_THREADS must be an integer from 0 to 1024, not "many".');
  });

  it('names the file and the key', () => {
    const path = file('prot: 3');
    expect(refusal(['--config', path])).toBe(`"prot" in ${path} is not an option; did you mean port?`);
    const bad = file('port: [1]');
    expect(refusal(['--config', bad])).toBe(`port in ${bad} must be an integer from 0 to 65535, not [1].`);
  });

  it.each(['- a\n- b', 'just text', 'a: [', '"unclosed'])('refuses a file that holds %j', (text) => {
    expect(refusal(['--config', file(text)])).toMatch(/^The configuration file .+\.yaml (cannot be read|must hold)/);
  });

  it('refuses a file that is not there', () => {
    expect(refusal(['--config', join(folder, 'none.yaml')])).toContain('ENOENT');
  });

  it('keeps secrets out of the sentence', () => {
    expect(refusal(['--config', file('api-keys: {a: hunter2}')])).not.toContain('hunter2');
  });
});
