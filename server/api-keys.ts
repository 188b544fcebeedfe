/**
 * API keys: read from the configuration and a file, compared in constant time. A key's name is the tenant that fair
 * queueing counts requests for. Knows no Fastify; guard.ts asks it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** The tenant of every request when there are no keys. */
export const OPEN_TENANT = 'default';

interface Key {
  readonly tenant: string;
  /** SHA-256 of the secret: equal lengths to compare, and nothing to read in a heap dump. */
  readonly digest: Buffer;
}

export class ApiKeys {
  readonly #keys: readonly Key[];

  /** Each entry is KEY or NAME:KEY. */
  constructor(entries: readonly string[]) {
    this.#keys = entries.map(parseKey);
  }

  /** Entries of the configuration and of the file, one a line, # starts a comment. Throws when the file cannot be read. */
  static load({ apiKeys, apiKeysFile }: { readonly apiKeys: readonly string[]; readonly apiKeysFile: string }): ApiKeys {
    const lines = apiKeysFile === '' ? [] : readFileSync(apiKeysFile, 'utf8').split('\n');
    const listed = lines.map((line) => line.replace(/(^|\s)#.*/, '').trim()).filter((line) => line !== '');
    if (apiKeysFile !== '' && listed.length === 0) throw new Error(`${apiKeysFile} holds no API key`);
    return new ApiKeys([...apiKeys, ...listed]);
  }

  /** 0: everyone may call. */
  get count(): number {
    return this.#keys.length;
  }

  /** The tenant whose key this is, or null. Takes the same time for every wrong key. */
  tenantOf(secret: string): string | null {
    const digest = digestOf(secret);
    let tenant: string | null = null;
    for (const key of this.#keys) {
      if (timingSafeEqual(key.digest, digest)) tenant = key.tenant;
    }
    return tenant;
  }
}

function parseKey(entry: string): Key {
  const named = /^([\w.-]+):(.+)$/.exec(entry);
  const digest = digestOf(named === null ? entry : named[2]!);
  return { digest, tenant: named === null ? `key-${digest.toString('hex').slice(0, 8)}` : named[1]! };
}

function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
