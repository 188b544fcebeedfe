/**
 * The body of POST /tokenize as JSON in slices. A million token ids written in one go would keep the event loop from
 * every other request for tens of milliseconds. Knows no HTTP. Used by routes/tokenize.ts.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Ids to a slice: about a millisecond of work. */
const SLICE = 16_384;

export interface Tokenization {
  /** [count] token ids. */
  readonly tokens: Int32Array;
  readonly maxModelLen: number;
  /** The text of a token, or null to leave the texts out. */
  readonly nameOf: ((token: number) => string) | null;
}

/** The JSON of TokenizeReply, piece by piece; other work of the event loop runs between two pieces. */
export async function* tokenizeJson({ tokens, maxModelLen, nameOf }: Tokenization): AsyncGenerator<string> {
  yield `{"count":${String(tokens.length)},"max_model_len":${String(maxModelLen)},"tokens":[`;
  yield* items(tokens, (slice) => slice.join(','));
  yield '],"token_strs":';
  if (nameOf === null) {
    yield 'null}';
    return;
  }
  yield '[';
  yield* items(tokens, (slice) => Array.from(slice, (token) => JSON.stringify(nameOf(token))).join(','));
  yield ']}';
}

async function* items(tokens: Int32Array, toText: (slice: Int32Array) => string): AsyncGenerator<string> {
  for (let start = 0; start < tokens.length; start += SLICE) {
    yield `${start === 0 ? '' : ','}${toText(tokens.subarray(start, start + SLICE))}`;
    await nextTurn();
  }
}
