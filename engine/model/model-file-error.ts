/**
 * A file of the model that is missing, truncated or corrupt, and the one way to read a JSON file of the
 * model. Knows no file's meaning. Thrown by everything that reads the model's folder; the message is shown
 * to the operator as it is.
 */
import { readFile } from 'node:fs/promises';

export class ModelFileError extends Error {
  override readonly name = 'ModelFileError';

  /** Message: '<file>: what is wrong'. */
  constructor(file: string, wrong: string, options?: ErrorOptions) {
    super(`${file}: ${wrong}`, options);
  }

  /** What the operating system said (ENOENT, EACCES, EISDIR ...), in words. */
  static fromSystem(file: string, error: unknown): ModelFileError {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    const wrong = code === 'ENOENT' ? 'does not exist, or is a link to a file that does not' : `cannot be read (${code})`;
    return new ModelFileError(file, wrong, { cause: error });
  }
}

/** The parsed content of a JSON file; throws ModelFileError. */
export async function readJsonFile(file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw ModelFileError.fromSystem(file, error);
  });
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new ModelFileError(file, `is not valid JSON (${error instanceof Error ? error.message : String(error)})`, { cause: error });
  }
}
