/** The body of POST /v1/completions. Knows shapes and bounds only; the kinds of prompt are told apart in server/generate/prompts.ts. */
import { Type, type Static } from 'typebox';
import { MAX_TOKENS, optionalBoolean, optionalInteger, optionalString, sharedParameters } from './schemas.ts';

export type PromptParameter = string | string[] | number[] | number[][];

const token = { type: 'integer', minimum: 0, maximum: MAX_TOKENS };

export const CompletionBody = Type.Object({
  prompt: Type.Unsafe<PromptParameter>({
    type: ['string', 'array'], minItems: 1, maxItems: MAX_TOKENS,
    items: { type: ['string', 'integer', 'array'], minimum: 0, maximum: MAX_TOKENS, minItems: 1, maxItems: MAX_TOKENS, items: token },
    description: 'A text, a list of texts, token ids, or a list of lists of token ids.',
  }),
  ...sharedParameters,
  max_tokens: optionalInteger({ minimum: 0, maximum: MAX_TOKENS }, 'Tokens per choice at most; default 16. 0 only with echo.'),
  logprobs: optionalInteger({ minimum: 0, maximum: 20 }, 'Report the log-probability of every token, and this many alternatives.'),
  echo: optionalBoolean('Begin the text with the prompt; with logprobs, report those of the prompt too.'),
  logprob_start_len: optionalInteger({ minimum: 0, maximum: MAX_TOKENS }, 'With echo and logprobs: the first prompt token whose log-probability is reported; what stands before it may come from the prefix cache.'),
  best_of: optionalInteger({ minimum: 0, maximum: 128 }, 'Only as a synonym of n.'),
  suffix: optionalString(MAX_TOKENS, 'Not supported.'),
}, { description: 'OpenAI\'s completion request, with the extensions of vLLM and long_context.' });
export type CompletionBody = Static<typeof CompletionBody>;
