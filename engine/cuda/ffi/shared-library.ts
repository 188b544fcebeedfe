/**
 * A C library and its functions, through koffi. Every pointer and handle is declared as uint64_t, which has the
 * same calling convention and comes as a bigint; what a function writes is a typed array that the caller owns.
 * Knows no CUDA. Called by driver.ts, nvrtc.ts and cublas-lt.ts.
 */
import koffi from 'koffi';
import { CudaUnavailableError } from './cuda-error.ts';
import { findLibrary, type SearchSettings } from './library-search.ts';

/** Integers, bigints, typed arrays (passed as they are, for the call only), strings, null. */
export type Argument = number | bigint | ArrayBufferView | string | readonly string[] | null;
export type NativeFunction = (...args: Argument[]) => number;

export class SharedLibrary {
  /** Where it was loaded from. */
  readonly path: string;
  readonly #handle: ReturnType<typeof koffi.load>;

  constructor(path: string) {
    this.path = path;
    this.#handle = koffi.load(path);
  }

  /** The functions of a table of C prototypes. Throws CudaUnavailableError when the library lacks one. */
  functions<Name extends string>(prototypes: Readonly<Record<Name, string>>): Readonly<Record<Name, NativeFunction>> {
    const functions: Partial<Record<Name, NativeFunction>> = {};
    for (const name in prototypes) functions[name] = this.function(prototypes[name]);
    return functions as Record<Name, NativeFunction>;
  }

  /** A function by its C prototype. Throws CudaUnavailableError when the library lacks it. */
  function(prototype: string): NativeFunction {
    try {
      return this.#handle.func(prototype) as NativeFunction;
    } catch (error) {
      throw new CudaUnavailableError(`${this.path} has no function '${prototype}': ${messageOf(error)}.`);
    }
  }
}

export interface LibraryRequest {
  /** 'libnvrtc'. */
  readonly stem: string;
  /** What it is, for the error: 'the CUDA run-time compiler'. */
  readonly purpose: string;
  /** A name that the system's loader may know, tried first; null for none. */
  readonly loaderName: string | null;
}

/** Throws CudaUnavailableError, which names every place. */
export function openLibrary({ stem, purpose, loaderName }: LibraryRequest, settings: SearchSettings): SharedLibrary {
  const failures: string[] = [];
  const attempt = (path: string): SharedLibrary | null => {
    try {
      return new SharedLibrary(path);
    } catch (error) {
      failures.push(messageOf(error));
      return null;
    }
  };
  const { path, searched } = findLibrary(stem, settings);
  const own = settings.folder !== '' && path?.startsWith(settings.folder) === true;
  const library = (own ? attempt(path) : null) ?? (loaderName === null ? null : attempt(loaderName)) ?? (path === null ? null : attempt(path));
  if (library !== null) return library;
  const why = failures.length === 0 ? '' : ` (${failures.join('; ')})`;
  throw new CudaUnavailableError(`${stem}.so, ${purpose}, was not found${why}; looked into ${searched.join(', ')}. --cuda-libraries names the folder that holds it.`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
