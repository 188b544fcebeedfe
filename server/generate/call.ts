/** What generate.ts passes on its way: the endpoint's call, and the same once it is admitted. Types only. */
import type { SharedBody } from '../../routes/schemas.ts';
import type { PlannedSpeculation } from './draft-prompt.ts';
import type { AnswerFormat } from './format.ts';
import type { EncodedPrompt, Prompts } from './prompts.ts';
import type { RequestSettings } from './settings.ts';

/** What an endpoint makes of its body. */
export interface GenerationCall {
  readonly body: SharedBody;
  readonly prompts: Prompts;
  /** 'chatcmpl' or 'cmpl' */
  readonly idPrefix: string;
  /** null: as many as the context leaves. */
  readonly maxTokens: number | null;
  /** Alternatives to report; null reports no log-probabilities. */
  readonly logprobs: number | null;
  /** First prompt token whose log-probability is reported, 1 or later; null reports none. */
  readonly promptLogprobsFrom: number | null;
  readonly format: AnswerFormat;
}

/** An admitted request, ready for the engine. */
export interface PreparedCall {
  readonly call: GenerationCall;
  readonly settings: RequestSettings;
  readonly prompts: readonly EncodedPrompt[];
  /** Per prompt. [prompts] */
  readonly maxTokens: readonly number[];
  readonly speculation: PlannedSpeculation;
  readonly deadlineMs: number | null;
  readonly arrivedMs: number;
  readonly tokenizeMs: number;
  readonly tenant: string;
}
