/** A small HTTP server whose answers a test writes; counts connections. Used by the tests of loadtest/. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ScriptedServer {
  readonly baseUrl: string;
  readonly connections: () => number;
  readonly close: () => void;
}

export type Answer = (body: Record<string, unknown>, response: ServerResponse, request: IncomingMessage) => void | Promise<void>;

/** `routes` by path. */
export async function scriptedServer(routes: Readonly<Record<string, Answer>>): Promise<ScriptedServer> {
  let connections = 0;
  const server = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString();
      const answer = routes[request.url!];
      if (!answer) response.writeHead(404).end('no such path');
      else await answer(text === '' ? {} : (JSON.parse(text) as Record<string, unknown>), response, request);
    })();
  });
  server.on('connection', () => connections++);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `http://127.0.0.1:${port}`,
    connections: () => connections,
    close: () => { server.close(); server.closeAllConnections(); },
  };
}

export function answerJson(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

export function sse(...events: readonly unknown[]): string {
  return events.map((event) => `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`).join('');
}

export function contentChunk(content: string): object {
  return { choices: [{ index: 0, delta: { content }, finish_reason: null }] };
}

export const ROLE_CHUNK = { choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }] };
export const FINISH_CHUNK = { choices: [{ index: 0, delta: {}, finish_reason: 'length' }] };

export function usageChunk(promptTokens: number, completionTokens: number, cachedTokens = 0): object {
  const usage = { prompt_tokens: promptTokens, completion_tokens: completionTokens, prompt_tokens_details: { cached_tokens: cachedTokens } };
  return { choices: [], usage, metrics: { prefill_ms: 1 } };
}
