/** OpenAI's chat completion objects and chunks. Knows the tokenizer for log-probabilities only. */
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { Answer, PromptRun } from './answer.ts';
import type { Choice, Delta } from './choice.ts';
import type { AnswerFormat, AnswerHead, Closing, FormatOptions } from './format.ts';
import { chatLogprobs } from './logprobs.ts';

export class ChatFormat implements AnswerFormat {
  readonly chunkObject = 'chat.completion.chunk';
  readonly #tokenizer: Tokenizer;
  readonly #options: FormatOptions;

  constructor(tokenizer: Tokenizer, options: FormatOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  body(head: AnswerHead, answer: Answer, { usage, metrics }: Closing): object {
    const { id, ...rest } = head;
    return {
      id, object: 'chat.completion', ...rest,
      choices: answer.choices.map((choice) => this.#choice(choice)),
      usage, metrics,
      ...(this.#options.tokenIds ? { prompt_token_ids: Array.from(answer.runs[0]!.prompt.ids) } : {}),
    };
  }

  opening({ index }: Choice): string {
    return `{"index":${index},"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`;
  }

  openingMembers({ prompt }: PromptRun): string {
    return this.#options.tokenIds ? `,"prompt_token_ids":[${prompt.ids.join(',')}]` : '';
  }

  delta({ index }: Choice, delta: Delta): string {
    const logprobs = this.#options.logprobs ? JSON.stringify(chatLogprobs(this.#tokenizer, delta.logprobs)) : 'null';
    const tokenIds = this.#options.tokenIds ? `,"token_ids":[${delta.tokenIds.join(',')}]` : '';
    return `{"index":${index},"delta":{"content":${JSON.stringify(delta.text)}},"logprobs":${logprobs},"finish_reason":null${tokenIds}}`;
  }

  ending({ index, ending }: Choice): string {
    const stopReason = JSON.stringify(ending?.stopReason ?? null);
    return `{"index":${index},"delta":{},"logprobs":null,"finish_reason":${JSON.stringify(ending?.reason ?? null)},"stop_reason":${stopReason}}`;
  }

  #choice(choice: Choice): object {
    const { text, tokenIds, logprobs } = choice.take();
    return {
      index: choice.index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: this.#options.logprobs ? chatLogprobs(this.#tokenizer, logprobs) : null,
      finish_reason: choice.ending?.reason ?? null,
      stop_reason: choice.ending?.stopReason ?? null,
      ...(this.#options.tokenIds ? { token_ids: tokenIds } : {}),
    };
  }
}
