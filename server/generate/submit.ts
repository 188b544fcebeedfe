/**
 * Hands the prompts of an admitted request to the engine and ties each generation to its choices. All prompts are
 * submitted, or none. Knows the engine's request, no HTTP. Called by generate.ts.
 */
import type { GenerationRequest } from '../../scheduler/messages.ts';
import type { Services } from '../services.ts';
import { Answer, type PromptRun } from './answer.ts';
import { Choice } from './choice.ts';
import type { PreparedCall } from './call.ts';

/** Throws engine_unavailable; then nothing is left running. */
export function submitPrompts(services: Services, prepared: PreparedCall): Answer {
  const runs: PromptRun[] = [];
  try {
    for (let index = 0; index < prepared.prompts.length; index++) runs.push(submitOne(services, prepared, index));
  } catch (error) {
    new Answer(runs).cancel();
    throw error;
  }
  return new Answer(runs);
}

function submitOne({ engine, text, metrics }: Services, prepared: PreparedCall, index: number): PromptRun {
  const { settings, arrivedMs } = prepared;
  const request = engineRequest(prepared, index);
  return {
    prompt: prepared.prompts[index]!,
    generation: engine.submit(request),
    choices: Array.from({ length: settings.choices }, (_, choice) => new Choice({
      index: index * settings.choices + choice,
      tokenizer: text.tokenizer,
      stopStrings: settings.stopStrings,
      includeStop: settings.includeStop,
      ownStopTokenIds: settings.ownStopTokenIds,
      logprobs: prepared.call.logprobs !== null,
      tokenIds: settings.returnTokenIds,
    })),
    record: metrics.requestStarted({ arrivedMs, promptTokens: request.promptIds.length, choices: request.choices, maxTokens: request.maxTokens }),
    cachedTokens: 0,
    promptLogprobs: [],
  };
}

function engineRequest({ call, settings, prompts, maxTokens, speculation, deadlineMs, tenant }: PreparedCall, index: number): Omit<GenerationRequest, 'id'> {
  return {
    tenant,
    promptIds: prompts[index]!.ids,
    choices: settings.choices,
    maxTokens: maxTokens[index]!,
    minTokens: settings.minTokens,
    stopTokenIds: settings.stopTokenIds,
    sampling: settings.sampling,
    logprobs: call.logprobs,
    promptLogprobsFrom: call.promptLogprobsFrom,
    attention: settings.attention,
    speculation: speculation.settings,
    priority: settings.priority,
    deadlineMs,
    cacheSalt: settings.cacheSalt,
    progress: settings.progress && settings.stream,
  };
}
