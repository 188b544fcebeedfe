/**
 * One response as server-sent events: headers, frames, keep-alive comments, the end, and whether the reader keeps
 * up. Knows no chunk format and no engine. Written by hand on the socket, since Fastify's own streams cost an
 * object per chunk. Used by server/generate/stream.ts.
 */
import type { FastifyReply } from 'fastify';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';

/** Ends every stream, also after an error: some parsers wait for it. */
const DONE = 'data: [DONE]\n\n';
const KEEP_ALIVE = ': keep-alive\n\n';

/** One event. JSON text has no line break outside JSON.stringify's own escapes. */
export const frame = (json: string): string => `data: ${json}\n\n`;

export interface SseOptions {
  /** A comment is sent each time nothing was sent for so long; 0 sends none. */
  readonly keepAliveMs: number;
  /** The reader has caught up after `write` returned false. */
  readonly onDrain: () => void;
}

export class SseStream {
  readonly #response: ServerResponse;
  readonly #keepAlive: NodeJS.Timeout | null;
  #behind = false;

  /**
   * Takes the response over from Fastify and sends the headers at once (with those that hooks have set). Its owner
   * must call end() or destroy(), also when the client has gone.
   */
  constructor(reply: FastifyReply, options: SseOptions) {
    reply.hijack();
    this.#response = reply.raw;
    this.#keepAlive = options.keepAliveMs > 0 ? setInterval(() => { this.#comment(); }, options.keepAliveMs) : null;
    this.#response.on('drain', () => { this.#caughtUp(options.onDrain); });
    this.#response.writeHead(200, { ...reply.getHeaders(), ...sseHeaders } as OutgoingHttpHeaders);
    this.#response.flushHeaders();
  }

  /** The socket has more to send than it should: hold further frames back until `onDrain`. */
  get behind(): boolean {
    return this.#behind;
  }

  get closed(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  write(frames: string): void {
    if (this.closed) return;
    this.#keepAlive?.refresh();
    if (!this.#response.write(frames)) this.#behind = true;
  }

  /** Sends the last frames and DONE. Nothing may follow. */
  end(frames: string): void {
    this.#stopKeepAlive();
    if (!this.closed) this.#response.end(frames + DONE);
  }

  /** Drops the connection with what was not sent. */
  destroy(): void {
    this.#stopKeepAlive();
    this.#response.destroy();
  }

  #comment(): void {
    if (!this.closed && !this.#behind) this.#response.write(KEEP_ALIVE);
  }

  #caughtUp(onDrain: () => void): void {
    this.#behind = false;
    onDrain();
  }

  #stopKeepAlive(): void {
    if (this.#keepAlive !== null) clearInterval(this.#keepAlive);
  }
}

const sseHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // nginx would collect the stream.
  'x-accel-buffering': 'no',
};
