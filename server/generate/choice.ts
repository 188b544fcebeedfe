/**
 * One choice of an answer on its way from tokens to text: decodes, watches for stop strings, keeps what has not been
 * sent yet, and how it ended. Log-probabilities wait until the text of their token is let go, so that they match what
 * the client reads. Knows no chunk format and no socket. Made by submit.ts; stream.ts and the formats take from it.
 */
import type { FinishReason, SequenceEvent, SequenceMetrics, TokenLogprob } from '../../scheduler/messages.ts';
import { StopStrings } from '../../tokenizer/stop-strings.ts';
import { StreamDecoder } from '../../tokenizer/stream-decoder.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { PlacedToken } from './logprobs.ts';

export interface ChoiceOptions {
  readonly index: number;
  readonly tokenizer: Tokenizer;
  readonly stopStrings: readonly string[];
  readonly includeStop: boolean;
  /** The request's own stop tokens: named as stop_reason. */
  readonly ownStopTokenIds: readonly number[];
  readonly logprobs: boolean;
  readonly tokenIds: boolean;
}

/** What a choice gained since the last take(). */
export interface Delta {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly PlacedToken[];
}

export interface Ending {
  readonly reason: FinishReason;
  /** The stop string or stop token that matched, as vLLM reports it. */
  readonly stopReason: string | number | null;
  readonly metrics: SequenceMetrics;
}

type Tokens = Extract<SequenceEvent, { type: 'tokens' }>;
type Finished = Extract<SequenceEvent, { type: 'finished' }>;

export class Choice {
  readonly index: number;
  ending: Ending | null = null;
  readonly #options: ChoiceOptions;
  readonly #decoder: StreamDecoder;
  readonly #stops: StopStrings;
  #numTokens = 0;
  #stopped: string | null = null;
  #text = '';
  #tokenIds: number[] = [];
  #waiting: PlacedToken[] = [];
  /** Characters decoded, and characters let go to the client. Kept only for log-probabilities. */
  #decodedChars = 0;
  #releasedChars = 0;

  constructor(options: ChoiceOptions) {
    this.index = options.index;
    this.#options = options;
    this.#decoder = new StreamDecoder(options.tokenizer, { skipSpecial: true });
    this.#stops = new StopStrings(options.stopStrings, { includeStop: options.includeStop });
  }

  /** Memory that waits to be taken, roughly. */
  get pendingBytes(): number {
    return this.#text.length + 8 * this.#tokenIds.length + 200 * this.#waiting.length;
  }

  /** Tokens so far, up to the end of a stop string. The token that stopped it counts, as in vLLM. */
  get completionTokens(): number {
    return this.#numTokens;
  }

  /** A stop string has been seen. */
  get isStopped(): boolean {
    return this.#stopped !== null;
  }

  /** 'stopped' once, when these tokens complete a stop string. What follows it is dropped. */
  accept({ tokens, logprobs }: Tokens): 'stopped' | 'goes on' {
    const wasStopped = this.isStopped;
    for (let i = 0; i < tokens.length && !this.isStopped; i++) this.#acceptOne(tokens[i]!, logprobs?.[i] ?? null);
    return this.isStopped && !wasStopped ? 'stopped' : 'goes on';
  }

  finish({ reason, stopToken, metrics }: Finished): void {
    if (!this.isStopped) this.#finishText(stopToken);
    const ownStop = stopToken !== null && this.#options.ownStopTokenIds.includes(stopToken) ? stopToken : null;
    this.ending = { reason: this.isStopped ? 'stop' : reason, stopReason: this.#stopped ?? ownStop, metrics };
  }

  /** What can be sent now; it is forgotten here. */
  take(): Delta {
    const delta = { text: this.#text, tokenIds: this.#tokenIds, logprobs: this.#releasedTokens() };
    this.#text = '';
    if (this.#tokenIds.length > 0) this.#tokenIds = [];
    return delta;
  }

  #acceptOne(token: number, logprob: TokenLogprob | null): void {
    this.#numTokens++;
    if (this.#options.tokenIds) this.#tokenIds.push(token);
    if (logprob !== null) this.#waiting.push({ token, offset: this.#decodedChars, logprob: logprob.logprob, top: logprob.top });
    this.#release(this.#decoder.push(token));
  }

  #finishText(stopToken: number | null): void {
    if (stopToken !== null) this.#acceptStopToken(stopToken);
    if (!this.isStopped) this.#release(this.#decoder.flush());
    if (!this.isStopped) this.#letGo(this.#stops.flush());
  }

  /** It is one of the choice's tokens, but its text is shown only if asked for. */
  #acceptStopToken(token: number): void {
    this.#numTokens++;
    if (this.#options.tokenIds) this.#tokenIds.push(token);
    if (this.#options.includeStop) this.#release(this.#decoder.push(token));
  }

  #release(decoded: string): void {
    if (decoded === '') return;
    if (this.#options.logprobs) this.#decodedChars += numChars(decoded);
    const { text, stopped } = this.#stops.push(decoded);
    this.#stopped = stopped;
    this.#letGo(text);
  }

  #letGo(text: string): void {
    this.#text += text;
    if (this.#options.logprobs) this.#releasedChars += numChars(text);
  }

  /** Tokens whose text has begun to be sent; at the end also those without text, unless a stop string cut them off. */
  #releasedTokens(): PlacedToken[] {
    if (this.#waiting.length === 0) return [];
    const all = this.ending !== null && !this.isStopped;
    const held = all ? -1 : this.#waiting.findIndex(({ offset }) => offset >= this.#releasedChars);
    const released = held === -1 ? this.#waiting : this.#waiting.slice(0, held);
    this.#waiting = held === -1 ? [] : this.#waiting.slice(held);
    return released;
  }
}

/** Code points, the unit of OpenAI's text_offset. */
export function numChars(text: string): number {
  let chars = text.length;
  for (let i = 0; i < text.length; i++) if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) chars--;
  return chars;
}
