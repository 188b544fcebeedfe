/**
 * Command line, LONGSPAN_* variables, YAML file and defaults -> one validated, frozen Config, in this order of
 * precedence. Knows the table (options.ts), not what the options do. Called by server/main.ts and by tests.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { parse as parseYaml } from 'yaml';
import { nearest } from './nearest.ts';
import { type Config, type Option, type OptionName, allowed, flagName, optionNames, options, variableName } from './options.ts';

/** An option that is unknown or has a bad value. The message is one sentence for the operator. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export interface ConfigSources {
  /** Arguments after the script's name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A value as it was found, and where: `--port`, `LONGSPAN_PORT` or `port in longspan.yaml`. */
interface Found {
  readonly raw: unknown;
  readonly where: string;
}
type Layer = ReadonlyMap<OptionName, Found>;

/** Throws ConfigError. */
export function loadConfig({ argv, env }: ConfigSources): Config {
  const flags = readFlags(argv);
  const variables = readVariables(env);
  const file = flags.get('config') ?? variables.get('config');
  const layers = [flags, variables, file === undefined ? new Map() : readFile(String(file.raw))];
  const entries = optionNames.map((name) => [name, valueOf(name, layers)] as const);
  return Object.freeze(Object.fromEntries(entries)) as Config;
}

function valueOf(name: OptionName, layers: readonly Layer[]): unknown {
  const found = layers.map((layer) => layer.get(name)).find((entry) => entry !== undefined);
  return found === undefined ? options[name].default : convert(options[name], found);
}

const flagToName = new Map(optionNames.map((name) => [flagName(name), name]));

function unknown(what: string, name: string, candidates: readonly string[]): ConfigError {
  const near = nearest(name, candidates);
  return new ConfigError(`${what} is not an option; ${near === null ? '--help lists them all.' : `did you mean ${near}?`}`);
}

/** The command line. parseArgs splits it; names and missing values are judged here, to name the nearest option. */
function readFlags(argv: readonly string[]): Layer {
  const layer = new Map<OptionName, Found>();
  const { tokens } = parseArgs({ args: [...argv], options: parseArgsOptions(), strict: false, allowNegative: true, tokens: true });
  for (const token of tokens) {
    if (token.kind === 'positional') throw new ConfigError(`Unexpected argument "${token.value}"; options start with --.`);
    if (token.kind === 'option') layer.set(...readFlag(token.name, token.rawName, token.value));
  }
  return layer;
}

function readFlag(flag: string, written: string, value: string | undefined): [OptionName, Found] {
  const name = flagToName.get(flag);
  const isSwitch = name !== undefined && options[name].kind === 'switch';
  const negated = written.startsWith('--no-');
  if (name === undefined || (negated && !isSwitch)) {
    throw unknown(written, written, [...flagToName.keys()].map((known) => `--${known}`));
  }
  if (isSwitch) return [name, { raw: value ?? !negated, where: written }];
  if (value === undefined || value.startsWith('--')) throw new ConfigError(`${written} needs a value.`);
  return [name, { raw: value, where: written }];
}

function parseArgsOptions(): Record<string, { type: 'boolean' | 'string'; short?: string }> {
  const entries = optionNames.map((name) => [
    flagName(name),
    { type: options[name].kind === 'switch' ? ('boolean' as const) : ('string' as const), ...(name === 'help' ? { short: 'h' } : {}) },
  ]);
  return Object.fromEntries(entries) as Record<string, { type: 'boolean' | 'string'; short?: string }>;
}

function readVariables(env: ConfigSources['env']): Layer {
  const known = new Map(settable().map((name) => [variableName(name), name]));
  const layer = new Map<OptionName, Found>();
  for (const [variable, raw] of Object.entries(env)) {
    if (!variable.startsWith('LONGSPAN_') || raw === undefined || isKubernetesLink(variable, raw)) continue;
    const name = known.get(variable);
    if (name === undefined) throw unknown(variable, variable, [...known.keys()]);
    layer.set(name, { raw, where: variable });
  }
  return layer;
}

/** Kubernetes sets LONGSPAN_PORT=tcp://10.0.0.7:8000 and the like in every pod beside a service named "longspan". */
function isKubernetesLink(variable: string, raw: string): boolean {
  return /_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)/.test(variable) || (variable === 'LONGSPAN_PORT' && /^(tcp|udp):/.test(raw));
}

function readFile(path: string): Layer {
  const known = new Map(settable().map((name) => [flagName(name), name]));
  const layer = new Map<OptionName, Found>();
  for (const [key, raw] of Object.entries(parseFile(path))) {
    const name = known.get(flagName(key).replaceAll('_', '-'));
    if (name === undefined || name === 'config') throw unknown(`"${key}" in ${path}`, key, [...known.keys()]);
    if (raw !== null) layer.set(name, { raw, where: `${key} in ${path}` });
  }
  return layer;
}

function parseFile(path: string): object {
  try {
    const content: unknown = parseYaml(readFileSync(path, 'utf8'));
    if (content === null) return {};
    if (typeof content === 'object' && !Array.isArray(content)) return content;
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split('\n');
    throw new ConfigError(`The configuration file ${path} cannot be read: ${reason!}`);
  }
  throw new ConfigError(`The configuration file ${path} must hold one option a line, such as "port: 9000".`);
}

function settable(): OptionName[] {
  return optionNames.filter((name) => !('flagOnly' in options[name]));
}

function convert(option: Option, { raw, where }: Found): unknown {
  const value = convertTo(option, raw);
  if (value !== null) return value;
  const shown = option.secret ? '' : `, not ${JSON.stringify(raw)}`;
  throw new ConfigError(`${where} must be ${allowed(option)}${shown}.`);
}

/** The typed value, or null when `raw` is no such value. */
function convertTo(option: Option, raw: unknown): unknown {
  switch (option.kind) {
    case 'text': return typeof raw === 'string' || typeof raw === 'number' ? String(raw) : null;
    case 'list': return toList(raw);
    case 'switch': return toSwitch(raw);
    case 'choice': return option.values.includes(String(raw)) ? raw : null;
    case 'integer':
    case 'number': return toNumber(option, raw);
  }
}

function toNumber(option: Extract<Option, { kind: 'integer' | 'number' }>, raw: unknown): number | null {
  const written = typeof raw === 'number' ? String(raw) : raw;
  if (typeof written !== 'string' || written.trim() === '') return null;
  const value = Number(written);
  const fits = value >= option.min && value <= option.max && (option.kind === 'number' || Number.isInteger(value));
  return fits ? value : null;
}

function toSwitch(raw: unknown): boolean | null {
  if (raw === true || raw === 'true' || raw === '1') return true;
  return raw === false || raw === 'false' || raw === '0' ? false : null;
}

function toList(raw: unknown): readonly string[] | null {
  const items: unknown = typeof raw === 'string' ? raw.split(',') : raw;
  if (!Array.isArray(items) || !items.every((item) => typeof item === 'string')) return null;
  return Object.freeze(items.map((item) => item.trim()).filter((item) => item !== ''));
}
