/** The header that names parameters which were sent and have no meaning here. Used by the generation routes. */
import type { FastifyReply } from 'fastify';
import type { TSchema } from 'typebox';
import { unknownParameters } from './schemas.ts';

const MAX_NAMES = 32;

export function noteIgnored(reply: FastifyReply, body: object, schema: TSchema): void {
  const names = unknownParameters(body, schema);
  if (names.length === 0) return;
  reply.header('x-longspan-ignored-parameters', names.slice(0, MAX_NAMES).map(printable).join(', '));
}

/** A header holds ASCII only, and the name is the client's. */
function printable(name: string): string {
  return name.slice(0, 64).replace(/[^\w.-]/g, '?');
}
