/**
 * An answer as server-sent events. What the engine reports within one tick becomes one write; a reader that falls
 * behind holds up only its own stream: text collects in the choices until the socket drains, and past a bound the
 * generation is cancelled. Knows frames, not what is in `choices` (format.ts). Called by generate.ts once the answer is
 * admitted: from here on an error is a frame.
 */
import type { FastifyReply } from 'fastify';
import { toApiError, toErrorBody } from '../errors.ts';
import type { Metrics } from '../metrics.ts';
import { SseStream, frame } from '../sse.ts';
import type { Answer, AnswerListener, Progress, PromptRun } from './answer.ts';
import type { Choice } from './choice.ts';
import type { AnswerFormat, AnswerHead, Closing } from './format.ts';
import { usage } from './usage.ts';

export interface StreamOptions {
  readonly head: AnswerHead;
  readonly format: AnswerFormat;
  readonly keepAliveMs: number;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  readonly showPreemptions: boolean;
  /** Text and tokens that may wait for a slow reader before its generation is cancelled. */
  readonly maxUnreadBytes: number;
  readonly closing: () => Closing;
  readonly metrics: Pick<Metrics, 'written'>;
}

/** Resolves when the last frame is handed to the socket. Never rejects: errors go to the client and the log. */
export async function streamAnswer(reply: FastifyReply, answer: Answer, options: StreamOptions): Promise<void> {
  const stream = new AnswerStream(reply, answer, options);
  try {
    await answer.read(stream);
    stream.finish();
  } catch (error) {
    const failure = toApiError(error);
    if (failure.status >= 500) reply.log.error(error);
    stream.fail(JSON.stringify(toErrorBody(failure)));
  }
}

class AnswerStream implements AnswerListener {
  readonly #reply: FastifyReply;
  readonly #answer: Answer;
  readonly #options: StreamOptions;
  readonly #sse: SseStream;
  /** A chunk up to and with `"choices":`. */
  readonly #chunkStart: string;
  /** A chunk after its choices, unless usage is continuous. */
  readonly #chunkEnd: string;
  /** Choices with something to send, in the order in which it came. */
  readonly #changed = new Map<Choice, PromptRun>();
  readonly #opened = new Set<Choice>();
  #numEnded = 0;
  #flushScheduled = false;
  /** performance.now() when the oldest unsent change came. */
  #changedAtMs = 0;

  constructor(reply: FastifyReply, answer: Answer, options: StreamOptions) {
    this.#reply = reply;
    this.#answer = answer;
    this.#options = options;
    const { id, ...rest } = options.head;
    this.#chunkStart = `${JSON.stringify({ id, object: options.format.chunkObject, ...rest }).slice(0, -1)},"choices":`;
    this.#chunkEnd = options.includeUsage ? ',"usage":null}' : '}';
    this.#sse = new SseStream(reply, { keepAliveMs: options.keepAliveMs, onDrain: () => { this.#flush(); } });
  }

  changed(choice: Choice, run: PromptRun): void {
    this.#changed.set(choice, run);
    if (this.#sse.behind) this.#checkUnread();
    else this.#scheduleFlush();
  }

  /** llama.cpp's chunk: no choices, and how far the prompt is. With several prompts it also says which. */
  progress({ total, cached, processed, timeMs }: Progress, run: PromptRun): void {
    const { runs } = this.#answer;
    const which = runs.length > 1 ? { index: runs.indexOf(run) } : {};
    const progress = JSON.stringify({ ...which, total, cache: cached, processed, time_ms: Math.round(timeMs) });
    if (!this.#sse.behind) this.#sse.write(this.#chunk('', `,"prompt_progress":${progress}`));
  }

  /** Ours, in the manner of progress. */
  preempted({ index }: Choice): void {
    if (this.#options.showPreemptions && !this.#sse.behind) this.#sse.write(this.#chunk('', `,"preempted":{"index":${index}}`));
  }

  finish(): void {
    const closing = this.#options.closing();
    this.#sse.end(this.#frames() + (this.#options.includeUsage ? this.#usageFrame(closing) : ''));
  }

  /** What was generated before the error is sent before it. */
  fail(errorJson: string): void {
    this.#sse.end(this.#frames() + frame(errorJson));
  }

  /** Once the promise callbacks of this tick have run, when all events of the engine's step are in. */
  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#changedAtMs = performance.now();
    process.nextTick(() => { this.#flush(); });
  }

  #flush(): void {
    this.#flushScheduled = false;
    if (this.#sse.behind || this.#changed.size === 0) return;
    const frames = this.#frames();
    if (frames === '') return;
    this.#sse.write(frames);
    this.#options.metrics.written((performance.now() - this.#changedAtMs) / 1000);
  }

  #frames(): string {
    let frames = '';
    for (const [choice, run] of this.#changed) frames += this.#framesOf(choice, run);
    this.#changed.clear();
    return frames;
  }

  #framesOf(choice: Choice, run: PromptRun): string {
    const { format } = this.#options;
    const delta = choice.take();
    const gained = delta.text !== '' || delta.tokenIds.length > 0 || delta.logprobs.length > 0;
    if (!gained && choice.ending === null) return '';
    let frames = this.#opening(choice, run);
    if (gained) frames += this.#chunk(format.delta(choice, delta));
    if (choice.ending !== null) frames += this.#endingFrame(choice);
    return frames;
  }

  #opening(choice: Choice, run: PromptRun): string {
    if (this.#opened.has(choice)) return '';
    this.#opened.add(choice);
    const { format } = this.#options;
    const entry = format.opening(choice, run);
    return entry === null ? '' : this.#chunk(entry, format.openingMembers(run));
  }

  /** Without a usage chunk the metrics stand in the last choice's last chunk. */
  #endingFrame(choice: Choice): string {
    const { format, includeUsage, closing } = this.#options;
    const isLast = ++this.#numEnded === this.#answer.choices.length;
    return this.#chunk(format.ending(choice), isLast && !includeUsage ? `,"metrics":${JSON.stringify(closing().metrics)}` : '');
  }

  #usageFrame({ usage, metrics }: Closing): string {
    return frame(`${this.#chunkStart}[],"usage":${JSON.stringify(usage)},"metrics":${JSON.stringify(metrics)}}`);
  }

  #chunk(entry: string, members = ''): string {
    const end = this.#options.continuousUsage ? `,"usage":${JSON.stringify(usage(this.#answer.counts()))}}` : this.#chunkEnd;
    return frame(`${this.#chunkStart}[${entry}]${members}${end}`);
  }

  #checkUnread(): void {
    let unread = 0;
    for (const choice of this.#changed.keys()) unread += choice.pendingBytes;
    if (unread <= this.#options.maxUnreadBytes) return;
    this.#reply.log.warn({ unreadBytes: unread }, 'the client does not read its stream: the generation is cancelled');
    this.#answer.cancel();
    this.#sse.destroy();
  }
}
