// Log-probabilities in the shape of completions: four lists in step, alternatives by name.
import { expect, test } from 'vitest';
import { completionLogprobs } from '../../server/generate/logprobs.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';

const names = [' a', 'b', '__proto__', 'toString', '\ufffd'];
const tokenizer = {
  tokenBytes: (token: number) => (token === 4 ? Uint8Array.of(0xe2, 0x80) : new TextEncoder().encode(names[token])),
} as Tokenizer;

test('each token stands among its alternatives, whatever it is called', () => {
  const placed = [
    { token: 0, offset: 0, logprob: null, top: [] },
    { token: 2, offset: 2, logprob: -1, top: [{ token: 1, logprob: -0.5 }, { token: 2, logprob: -1 }] },
    { token: 3, offset: 11, logprob: -Infinity, top: [{ token: 4, logprob: -2 }] },
  ];
  // As text: comparing objects would overlook a member called __proto__.
  expect(JSON.stringify(completionLogprobs(tokenizer, placed))).toBe(String.raw`{"text_offset":[0,2,11],"token_logprobs":[null,-1,-9999],"tokens":[" a","__proto__","toString"],`
    + String.raw`"top_logprobs":[null,{"b":-0.5,"__proto__":-1},{"bytes:\\xe2\\x80":-2,"toString":-9999}]}`);
});
