// What the documents name exists: scripts, options, request fields, files, metrics.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { optionNames, flagName } from '../../config/options.ts';
import { LongContext, sharedParameters } from '../../routes/schemas.ts';
import { registerEngineGauges } from '../../server/engine-gauges.ts';
import { createSeries } from '../../server/metric-series.ts';
import { packagePath } from '../../server/package.ts';
import { scripted } from '../server/scripted-engine.ts';

const read = (path: string): string => readFileSync(packagePath(path), 'utf8');
const readme = read('README.md');
const decisions = readdirSync(packagePath('docs/decisions')).map((name) => `docs/decisions/${name}`);
const written = ['README.md', 'docs/architecture.md', 'docs/log.md', 'docs/examples/README.md', 'loadtest/README.md', 'training/README.md', 'models/longspan-16m/README.md', 'models/longspan-drafter/README.md', ...decisions];
const matches = (text: string, pattern: RegExp): string[] => [...new Set([...text.matchAll(pattern)].map((match) => match[1]!))];

describe.each(written)('%s', (path) => {
  const text = read(path);

  it('names npm scripts that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = matches(text, /npm (?:run )?([\w:]+)/g).filter((name) => !['ci', 'install'].includes(name));
    expect(named.filter((name) => !Object.hasOwn(scripts, name) && !/^[A-Z]/.test(name))).toEqual([]);
  });

  it('links to files that exist', () => {
    const links = matches(text, /\]\(([^)#:]+)\)/g);
    expect(links.filter((link) => !existsSync(join(packagePath(dirname(path)), link)))).toEqual([]);
  });
});

describe('the README', () => {
  it('names options that are in the table, and none of another program', () => {
    const flags = new Set(optionNames.map(flagName));
    const ours = readme.replaceAll(/^ {4}docker .*$/gm, '');
    const named = matches(ours, /(?<=[\s`])--([a-z][a-z-]+)/g);
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((flag) => !flags.has(flag))).toEqual([]);
  });

  it('has a row for every field of long_context, with the bounds of the schema', () => {
    const properties = LongContext.properties as Record<string, { minimum?: number; maximum?: number }>;
    for (const [name, { minimum, maximum }] of Object.entries(properties)) {
      const row = readme.split('\n').find((line) => line.startsWith(`| \`${name}\` |`));
      expect(row, name).toBeDefined();
      if (minimum !== undefined) expect(row).toContain(`| ${minimum.toLocaleString('en')} to ${maximum!.toLocaleString('en')} |`);
    }
  });

  it('names parameters that a request may have', () => {
    const [, paragraph] = /Beside OpenAI's parameters a request may have (.*?)named and meant/s.exec(readme)!;
    for (const name of matches(paragraph!, /`(\w+)`/g)) expect(sharedParameters).toHaveProperty(name);
  });

  it('names metrics that are there', async () => {
    const { engine } = scripted();
    const { registry } = createSeries('some-model');
    registerEngineGauges(registry, engine);
    await engine.close();
    const named = matches(readme, /`((?:vllm|longspan):\w+)`/g);
    expect(named.length).toBeGreaterThan(5);
    for (const name of named) expect(registry.getSingleMetric(name), name).toBeDefined();
  });
});

describe('docs/architecture.md', () => {
  it('names files that exist', () => {
    const files = matches(read('docs/architecture.md'), /((?:[\w-]+\/)+[a-z][\w.-]*\.(?:ts|md|json))/g);
    expect(files.length).toBeGreaterThan(30);
    expect(files.filter((file) => !existsSync(packagePath(file)) && !existsSync(packagePath(`docs/${file}`)))).toEqual([]);
  });
});

describe('the example document', () => {
  it('holds the needle once, and the documents give its number', () => {
    const needle = /One of the special magic numbers for silver-lantern is: (\d{7})\./g;
    const [number, ...others] = matches(read('docs/examples/the-time-machine.txt'), needle);
    expect(others).toEqual([]);
    expect([...read('docs/examples/the-time-machine.txt').matchAll(needle)]).toHaveLength(1);
    expect(readme).toContain(`in the provided text is ${number!}.`);
    expect(read('docs/examples/README.md')).toContain(`is: ${number!}.`);
  });
});
