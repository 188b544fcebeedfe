/**
 * A schema violation (ajv, verbose) -> the ApiError that OpenAI would send: its code, its wording, the parameter as a
 * path such as messages[0].role. Pure. Called by error-replies.ts.
 */
import { type ApiError, apiError } from './errors.ts';

/** The part of ajv's ErrorObject that is read. */
export interface Violation {
  readonly keyword: string;
  /** JSON pointer into the body. */
  readonly instancePath: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly message?: string | undefined;
  /** The offending value and the schema it offends; ajv adds them in verbose mode. */
  readonly data?: unknown;
  readonly parentSchema?: { readonly type?: string | readonly string[] } | undefined;
}

export function validationError(violation: Violation): ApiError {
  const { keyword, params, data } = violation;
  const param = pathOf(violation.instancePath);
  switch (keyword) {
    case 'required': return apiError('missing_required_parameter', { param: join(param, String(params['missingProperty'])) });
    case 'additionalProperties': return apiError('unknown_parameter', { param: join(param, String(params['additionalProperty'])) });
    case 'type': return typeError(param, params['type'], data);
    case 'enum': return apiError('invalid_value', { param, reason: `supported values are ${listed(params['allowedValues'])}, but got ${brief(data)}.` });
    case 'minimum':
    case 'exclusiveMinimum':
    case 'maximum':
    case 'exclusiveMaximum': return boundError(param, violation);
    case 'minItems': return apiError('empty_array', { param, ...lengths(violation) });
    case 'maxItems': return apiError('array_above_max_length', { param, ...lengths(violation) });
    case 'minLength': return apiError('empty_string', { param, ...lengths(violation) });
    case 'maxLength': return apiError('string_above_max_length', { param, ...lengths(violation) });
    default: return apiError('invalid_value', { param, reason: `it ${violation.message ?? 'does not match the schema'}.` });
  }
}

/** /messages/0/role -> messages[0].role */
function pathOf(pointer: string): string {
  const segments = pointer.split('/').slice(1).map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
  return segments.reduce(join, '');
}

function join(path: string, segment: string): string {
  if (/^\d+$/.test(segment)) return `${path}[${segment}]`;
  return path === '' ? segment : `${path}.${segment}`;
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'a string', integer: 'an integer', number: 'a decimal', boolean: 'a boolean', array: 'an array', object: 'an object', null: 'null', infinite: 'a number out of range',
};

function typeError(param: string, types: unknown, data: unknown): ApiError {
  if (param === '') return apiError('invalid_request', { reason: 'the body must be a JSON object.' });
  const wanted = String(types).split(',').filter((type) => type !== 'null');
  const expected = wanted.map((type) => typeNames[type] ?? type).join(' or ');
  return apiError('invalid_type', { param, expected, got: typeNames[typeOf(data)]! });
}

function typeOf(value: unknown): string {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return 'array';
  if (value === Infinity || value === -Infinity) return 'infinite'; // 1e999 is valid JSON
  return Number.isInteger(value) ? 'integer' : typeof value;
}

function boundError(param: string, { keyword, params, data, parentSchema }: Violation): ApiError {
  const kind = [parentSchema?.type].flat().includes('integer') ? 'integer' : 'decimal';
  const bound = keyword.toLowerCase().includes('min') ? 'below_min' : 'above_max';
  return apiError(`${kind}_${bound}_value`, { param, limit: Number(params['limit']), got: Number(data) });
}

function lengths({ params, data }: Violation): { limit: number; got: number } {
  return { limit: Number(params['limit']), got: (data as ArrayLike<unknown>).length };
}

function listed(values: unknown): string {
  return (values as readonly unknown[]).map((value) => `'${String(value)}'`).join(', ');
}

/** A value short enough for a sentence. */
function brief(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
