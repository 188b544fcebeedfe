import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventStreamParser } from '../../loadtest/event-stream.ts';

function parse(...pieces: readonly Uint8Array[]): string[] {
  const parser = new EventStreamParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('EventStreamParser', () => {
  it('gives the same events wherever the bytes are cut', () => {
    const text = fc.string({ unit: 'grapheme' }).map((value) => value.replaceAll(/[\r\n]/g, '.'));
    const lengths = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 });
    fc.assert(fc.property(fc.array(text, { minLength: 1 }), fc.boolean(), lengths, (events, crlf, cuts) => {
      const end = crlf ? '\r\n' : '\n';
      const stream = bytes(events.map((event) => `: alive${end}${end}data: ${event}${end}${end}`).join(''));
      const pieces: Uint8Array[] = [];
      for (let from = 0; from < stream.length; from += pieces.at(-1)!.length) pieces.push(stream.subarray(from, from + cuts[pieces.length % cuts.length]!));
      expect(parse(...pieces)).toEqual(events);
    }));
  });

  it('joins the data lines of one event and ignores comments, names and ids', () => {
    expect(parse(bytes('event: x\nid: 7\ndata: a\n: comment\ndata:b\n\n'))).toEqual(['a\nb']);
  });

  it('does not give an event before its empty line', () => {
    expect(parse(bytes('data: a\n'))).toEqual([]);
  });
});
