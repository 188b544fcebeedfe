/**
 * Log-probabilities in OpenAI's two shapes. A token's text may be less than a character: then it is written as
 * `bytes:\xe2\x80`, as OpenAI does, and its exact bytes stand beside it. Knows the tokenizer and no requests.
 * Used by the two formats.
 */
import type { TokenLogprob } from '../../scheduler/messages.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';

/** A generated (or echoed) token with its place in the text. */
export interface PlacedToken {
  readonly token: number;
  /** Characters (code points) of text before it. */
  readonly offset: number;
  /** null for the first token of a prompt: nothing predicted it. */
  readonly logprob: number | null;
  readonly top: TokenLogprob['top'];
}

/** JSON has no -Infinity; vLLM writes this number for it. */
const LOWEST = -9999;
const finite = (logprob: number): number => Math.max(logprob, LOWEST);

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function tokenName(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
  }
}

function chatEntry(tokenizer: Tokenizer, token: number, logprob: number): object {
  const bytes = tokenizer.tokenBytes(token);
  return { token: tokenName(bytes), logprob: finite(logprob), bytes: Array.from(bytes) };
}

/** `logprobs` of a chat choice. */
export function chatLogprobs(tokenizer: Tokenizer, tokens: readonly PlacedToken[]): object {
  const content = tokens.map(({ token, logprob, top }) => ({
    ...chatEntry(tokenizer, token, logprob ?? 0),
    top_logprobs: top.map((other) => chatEntry(tokenizer, other.token, other.logprob)),
  }));
  return { content, refusal: null };
}

/** `logprobs` of a completion choice: four lists in step. The chosen token is always among its alternatives. */
export function completionLogprobs(tokenizer: Tokenizer, tokens: readonly PlacedToken[]): object {
  // An echoed text has each token many times, and more often among alternatives.
  const names = new Map<number, string>();
  const name = (token: number): string => {
    const known = names.get(token);
    if (known !== undefined) return known;
    const made = tokenName(tokenizer.tokenBytes(token));
    names.set(token, made);
    return made;
  };
  return {
    text_offset: tokens.map(({ offset }) => offset),
    token_logprobs: tokens.map(({ logprob }) => logprob === null ? null : finite(logprob)),
    tokens: tokens.map(({ token }) => name(token)),
    top_logprobs: tokens.map(({ token, logprob, top }) => {
      if (logprob === null) return null;
      // Without a prototype: a token may be called what a member of one is.
      const alternatives = Object.create(null) as Record<string, number>;
      for (const other of top) alternatives[name(other.token)] = finite(other.logprob);
      alternatives[name(token)] = finite(logprob);
      return alternatives;
    }),
  };
}
