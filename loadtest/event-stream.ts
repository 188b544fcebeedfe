/**
 * Server-sent events from bytes that may be cut anywhere: inside a line, a character, or a CRLF pair.
 * Follows the WHATWG event-stream rules as far as data goes; event names and ids are not used by the API,
 * nor is a bare CR as line end. Called by client.ts.
 */
export class EventStreamParser {
  readonly #decoder = new TextDecoder();
  #rest = '';
  #data: string[] = [];

  /** The data of every event that `bytes` completes. */
  push(bytes: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop()!;
    const events: string[] = [];
    for (const line of lines) this.#line(line.endsWith('\r') ? line.slice(0, -1) : line, events);
    return events;
  }

  #line(line: string, events: string[]): void {
    if (line.startsWith('data:')) {
      this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
    } else if (line === '' && this.#data.length > 0) {
      events.push(this.#data.join('\n'));
      this.#data = [];
    }
  }
}
