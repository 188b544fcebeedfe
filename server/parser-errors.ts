/**
 * What is no HTTP request, answered in OpenAI's body as everything else: Node's parser gives up before there is a
 * request, so that the response is written by hand and the connection ends. Knows sockets and the table of errors, no
 * routes. Installed by app.ts.
 */
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { apiError, toErrorBody, type ApiError } from './errors.ts';

/** Fastify's clientErrorHandler. */
export function answerParserError(error: Error & { readonly code: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(responseText(parserError(error)));
}

function parserError({ code, message }: Error & { readonly code: string }): ApiError {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW': return apiError('headers_too_large', {});
    case 'ERR_HTTP_REQUEST_TIMEOUT': return apiError('request_timeout', {});
    default: return apiError('invalid_request', { reason: `it is not HTTP (${message}).` });
  }
}

function responseText(error: ApiError): string {
  const body = JSON.stringify(toErrorBody(error));
  const headers = [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]!}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: req_${randomUUID().replaceAll('-', '')}`,
    ...(error.retry ? [] : ['x-should-retry: false']),
    'connection: close',
  ];
  return `${headers.join('\r\n')}\r\n\r\n${body}`;
}
