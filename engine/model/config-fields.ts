/**
 * Typed reading of a JSON object that someone else wrote: every field is checked where it is read, and a
 * wrong one is refused with a sentence that names it. Knows no field names. Called by spec.ts and
 * rope-config.ts for config.json.
 */
import { UnsupportedModelError } from '../engine.ts';

export class ConfigFields {
  readonly #record: Readonly<Record<string, unknown>>;
  /** What messages call this object: 'config.json', 'config.json rope_scaling'. */
  readonly path: string;

  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new UnsupportedModelError(`${path} must be a JSON object.`);
    }
    this.#record = value as Record<string, unknown>;
    this.path = path;
  }

  keys(): readonly string[] {
    return Object.keys(this.#record);
  }

  /** null where the field is absent or null: configurations use both for "not set". */
  raw(name: string): unknown {
    return this.#record[name] ?? null;
  }

  has(name: string): boolean {
    return this.raw(name) !== null;
  }

  /** True where the field is written, even as null: sometimes null says "off" and absence "the default". */
  isWritten(name: string): boolean {
    return name in this.#record;
  }

  object(name: string): ConfigFields | null {
    return this.has(name) ? new ConfigFields(this.raw(name), `${this.path} ${name}`) : null;
  }

  /** A positive finite number; without a fallback it must be there. */
  positive(name: string, fallback: number | null = null): number {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value;
    throw this.#wrong(name, 'a positive number');
  }

  /** A positive whole number; without a fallback it must be there. */
  count(name: string, fallback: number | null = null): number {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value;
    throw this.#wrong(name, 'a positive whole number');
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.#wrong(name, 'true or false');
  }

  text(name: string, fallback: string): string {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'string') return value;
    throw this.#wrong(name, 'a string');
  }

  /** null where the field is absent. */
  texts(name: string): readonly string[] | null {
    const value = this.raw(name);
    if (value === null) return null;
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
    throw this.#wrong(name, 'a list of strings');
  }

  #wrong(name: string, wanted: string): UnsupportedModelError {
    const got = this.isWritten(name) ? `got ${JSON.stringify(this.#record[name])}` : 'it is missing';
    return new UnsupportedModelError(`${this.path}: ${name} must be ${wanted}, ${got}.`);
  }
}
