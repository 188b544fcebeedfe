/** OpenAI's text completion objects and chunks, with the echo of the prompt. Knows the tokenizer for echo and log-probabilities. */
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { Answer, PromptRun } from './answer.ts';
import { numChars, type Choice, type Delta } from './choice.ts';
import type { AnswerFormat, AnswerHead, Closing, FormatOptions } from './format.ts';
import { completionLogprobs, type PlacedToken } from './logprobs.ts';

export interface CompletionFormatOptions extends FormatOptions {
  readonly echo: boolean;
  /** First prompt token that the echoed log-probabilities hold. */
  readonly logprobStart: number;
}

export class CompletionFormat implements AnswerFormat {
  readonly chunkObject = 'text_completion';
  readonly #tokenizer: Tokenizer;
  readonly #options: CompletionFormatOptions;
  /** Characters of the echoed prompt, by which the offsets of a choice's own tokens are shifted. */
  readonly #echoedChars = new Map<Choice, number>();

  constructor(tokenizer: Tokenizer, options: CompletionFormatOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  body(head: AnswerHead, answer: Answer, { usage, metrics }: Closing): object {
    const { id, ...rest } = head;
    const choices = answer.runs.flatMap((run) => run.choices.map((choice) => this.#choice(choice, run)));
    return { id, object: 'text_completion', ...rest, choices, usage, metrics };
  }

  opening(choice: Choice, run: PromptRun): string | null {
    if (!this.#options.echo && !this.#options.tokenIds) return null;
    const echo = this.#echo(choice, run);
    const promptIds = this.#options.tokenIds ? `,"prompt_token_ids":[${run.prompt.ids.join(',')}],"token_ids":[]` : '';
    return this.#entry(choice, echo) + `,"finish_reason":null${promptIds}}`;
  }

  openingMembers(): string {
    return '';
  }

  delta(choice: Choice, delta: Delta): string {
    const tokenIds = this.#options.tokenIds ? `,"token_ids":[${delta.tokenIds.join(',')}]` : '';
    return this.#entry(choice, { text: delta.text, logprobs: this.#shifted(choice, delta.logprobs) }) + `,"finish_reason":null${tokenIds}}`;
  }

  ending({ index, ending }: Choice): string {
    const stopReason = JSON.stringify(ending?.stopReason ?? null);
    return `{"index":${index},"text":"","logprobs":null,"finish_reason":${JSON.stringify(ending?.reason ?? null)},"stop_reason":${stopReason}}`;
  }

  #choice(choice: Choice, run: PromptRun): object {
    const echo = this.#echo(choice, run);
    const { text, tokenIds, logprobs } = choice.take();
    return {
      index: choice.index,
      text: echo.text + text,
      logprobs: this.#logprobs([...echo.logprobs, ...this.#shifted(choice, logprobs)]),
      finish_reason: choice.ending?.reason ?? null,
      stop_reason: choice.ending?.stopReason ?? null,
      ...(this.#options.tokenIds ? { token_ids: tokenIds, prompt_token_ids: Array.from(run.prompt.ids) } : {}),
    };
  }

  /** An entry without its last members and brace. */
  #entry({ index }: Choice, { text, logprobs }: Echo): string {
    return `{"index":${index},"text":${JSON.stringify(text)},"logprobs":${JSON.stringify(this.#logprobs(logprobs))}`;
  }

  #logprobs(tokens: readonly PlacedToken[]): object | null {
    return this.#options.logprobs ? completionLogprobs(this.#tokenizer, tokens) : null;
  }

  #echo(choice: Choice, run: PromptRun): Echo {
    if (!this.#options.echo) return { text: '', logprobs: [] };
    const text = run.prompt.text ?? this.#tokenizer.decode(run.prompt.ids, { skipSpecial: false });
    this.#echoedChars.set(choice, numChars(text));
    return { text, logprobs: this.#options.logprobs ? this.#promptTokens(run) : [] };
  }

  /** The prompt's tokens from logprobStart on, each with its place; the prompt's first has no log-probability, since nothing predicted it. */
  #promptTokens({ prompt, promptLogprobs }: PromptRun): PlacedToken[] {
    // Encoding a text may put a begin-of-text token first, which is not in the text.
    const numAdded = prompt.text !== null && this.#tokenizer.addBos ? 1 : 0;
    const { logprobStart } = this.#options;
    const scored = Math.max(1, logprobStart);
    let chars = 0;
    const placed = Array.from(prompt.ids, (token, i): PlacedToken => {
      const offset = chars;
      if (i >= numAdded) chars += startedChars(this.#tokenizer.tokenBytes(token));
      const found = promptLogprobs[i - scored];
      return { token, offset, logprob: found?.logprob ?? null, top: found?.top ?? [] };
    });
    return placed.slice(logprobStart);
  }

  #shifted(choice: Choice, tokens: readonly PlacedToken[]): readonly PlacedToken[] {
    const by = this.#echoedChars.get(choice) ?? 0;
    return by === 0 ? tokens : tokens.map((token) => ({ ...token, offset: token.offset + by }));
  }
}

interface Echo {
  readonly text: string;
  readonly logprobs: readonly PlacedToken[];
}

/** UTF-8 characters that begin in these bytes. */
function startedChars(bytes: Uint8Array): number {
  let chars = 0;
  for (const byte of bytes) if ((byte & 0xc0) !== 0x80) chars++;
  return chars;
}
