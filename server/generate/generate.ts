/**
 * The way of a generation request, the same for every endpoint: check, reserve a place, tokenise, check lengths,
 * retrieve for a drafter, submit, then collect or stream. Every error up to the submission is thrown, so that it has a real HTTP status.
 * Knows no endpoint's shapes (format.ts) and no tensor. Called by routes/chat-completions.ts and routes/completions.ts.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { randomUUID } from 'node:crypto';
import { ClientPresence } from '../client-presence.ts';
import { EngineUnavailableError, apiError } from '../errors.ts';
import type { EngineClient } from '../generation.ts';
import type { Services } from '../services.ts';
import type { Answer, AnswerListener } from './answer.ts';
import { appliedAttention } from './attention.ts';
import type { GenerationCall, PreparedCall } from './call.ts';
import type { AnswerHead, Closing } from './format.ts';
import { planSpeculation } from './draft-prompt.ts';
import { checkedMaxTokens } from './limits.ts';
import { checkModel, type EncodedPrompt, type Prompts } from './prompts.ts';
import { checkVocabulary, requestSettings, type RequestSettings } from './settings.ts';
import { fittedTo } from './speculation.ts';
import { speculationObject } from './speculation-metrics.ts';
import { streamAnswer } from './stream.ts';
import { submitPrompts } from './submit.ts';
import { metricsObject, usage } from './usage.ts';

/** Text that may wait for a reader who does not read. */
const MAX_UNREAD_BYTES = 1 << 20;

/** The answer's object, or the reply once it has been streamed. */
export async function generate(services: Services, request: FastifyRequest, reply: FastifyReply, call: GenerationCall): Promise<unknown> {
  const client = new ClientPresence(reply.raw);
  const spec = readySpec(services.engine);
  const { prepared, answer } = await admit(services, call, { spec, client, tenant: request.tenant });
  client.onGone(() => { answer.cancel(); });
  const head = answerHead(services, spec, call.idPrefix);
  const closing = (): Closing => closingOf(answer, prepared);
  if (!prepared.settings.stream) {
    await answer.read(silent);
    if (client.gone) throw apiError('aborted', {});
    return call.format.body(head, answer, closing());
  }
  await streamAnswer(reply, answer, {
    head, format: call.format, closing, metrics: services.metrics,
    keepAliveMs: services.config.sseKeepAliveMs, maxUnreadBytes: MAX_UNREAD_BYTES,
    includeUsage: prepared.settings.includeUsage, continuousUsage: prepared.settings.continuousUsage,
    showPreemptions: prepared.settings.progress,
  });
  return reply;
}

interface Circumstances {
  readonly spec: NonNullable<EngineClient['spec']>;
  readonly client: ClientPresence;
  readonly tenant: string;
}

/** The place in the queue is held from before tokenising until the engine counts the request itself. */
async function admit(services: Services, call: GenerationCall, { spec, client, tenant }: Circumstances): Promise<{ prepared: PreparedCall; answer: Answer }> {
  const arrivedMs = performance.now();
  checkModel(call.body.model ?? null, services.model.name);
  const settings = requestSettings(call.body, { config: services.config, model: services.model, spec });
  const asked = fittedTo(call.prompts, settings.speculation);
  checkPromptCount(call.prompts, services.config.maxQueuedRequests);
  const place = services.admission.reserve({ prompts: call.prompts.count, tokens: call.prompts.estimatedTokens, deadlineMs: settings.deadlineMs });
  try {
    const prompts = await call.prompts.encode(services.text);
    const tokenizeMs = performance.now() - arrivedMs;
    const maxTokens = checkPrompts(services, { call, settings, prompts, vocab: spec.vocab });
    const speculation = await planSpeculation(services.retrieval, { asked, prompts: call.prompts, encoded: prompts });
    if (client.gone) throw apiError('aborted', {});
    const deadlineMs = remaining(settings.deadlineMs, performance.now() - arrivedMs);
    place.settle(prompts.reduce((total, { ids }) => total + ids.length, 0), deadlineMs);
    const prepared = { call, settings, prompts, maxTokens, speculation, deadlineMs, arrivedMs, tokenizeMs, tenant };
    return { prepared, answer: submitPrompts(services, prepared) };
  } finally {
    place.release();
  }
}

function readySpec(engine: EngineClient): NonNullable<EngineClient['spec']> {
  if (engine.spec === null) throw new EngineUnavailableError(engine.state);
  return engine.spec;
}

function checkPromptCount({ count }: Prompts, limit: number): void {
  if (count > limit) throw apiError('array_above_max_length', { param: 'prompt', limit, got: count });
}

interface Checked {
  readonly call: GenerationCall;
  readonly settings: RequestSettings;
  readonly prompts: readonly EncodedPrompt[];
  readonly vocab: number;
}

/** Tokens that each prompt's choices may have. [prompts] */
function checkPrompts({ model, engine }: Services, { call, settings, prompts, vocab }: Checked): number[] {
  return prompts.map(({ ids, text }) => {
    if (text === null) checkVocabulary(ids, vocab, call.prompts.noun);
    const maxTokens = checkedMaxTokens({
      promptTokens: ids.length, maxTokens: call.maxTokens, attention: settings.attention,
      contextLength: model.contextLength, kvTokens: engine.kvTokens, noun: call.prompts.noun,
    });
    if (settings.minTokens > maxTokens) throw apiError('integer_above_max_value', { param: 'min_tokens', limit: maxTokens, got: settings.minTokens });
    return maxTokens;
  });
}

/** The engine's clock starts at the submission, the client's at the arrival. */
function remaining(deadlineMs: number | null, elapsedMs: number): number | null {
  if (deadlineMs === null) return null;
  if (elapsedMs < deadlineMs) return Math.ceil(deadlineMs - elapsedMs);
  throw apiError('deadline_exceeded', { reason: `reading the prompt took ${Math.ceil(elapsedMs)} ms of ${deadlineMs}.` });
}

function answerHead(services: Services, spec: Circumstances['spec'], idPrefix: string): AnswerHead {
  return {
    id: `${idPrefix}-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(Date.now() / 1000),
    model: services.model.name,
    system_fingerprint: `fp_${spec.engine}_${spec.precision}`,
  };
}

function closingOf(answer: Answer, { settings, speculation: planned, tokenizeMs }: PreparedCall): Closing {
  const choices = answer.endings();
  const attention = appliedAttention(settings.attention);
  const speculation = speculationObject(planned, choices);
  return { usage: usage(answer.counts()), metrics: metricsObject({ tokenizeMs, attention, speculation, choices }) };
}

const nothing = (): void => undefined;
const silent: AnswerListener = { changed: nothing, progress: nothing, preempted: nothing };
