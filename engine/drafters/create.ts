/**
 * From what a request asks to the drafter that does it: the only file that knows the kinds of drafting by name. One
 * drafter serves all sequences that ask the same. Called by scheduler/drafting.ts.
 */
import type { Engine } from '../engine.ts';
import type { KvCache } from '../../kvcache/kv-cache.ts';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import type { Drafter, ForeseenText } from './drafter.ts';
import { MiddleDrafter } from './middle-drafter.ts';
import { NgramDrafter } from './ngram-drafter.ts';
import type { Opening } from './own-text.ts';
import { OwnTextDrafter } from './own-text-drafter.ts';

export interface DrafterSettings {
  readonly speculation: 'ngram' | 'triforce' | 'rapid';
  /** triforce: tokens that the middle level reads. */
  readonly draftBudget: number;
  /** triforce: what drafts for the middle level. rapid: what drafts for the target, the target itself with 'none'. */
  readonly draftLevel: 'auto' | 'model' | 'ngram' | 'none';
}

/** An engine and the ids of its pages. */
export interface DraftMemory {
  readonly engine: Engine;
  readonly kv: KvCache;
}

export interface DrafterParts {
  readonly target: DraftMemory;
  /** null when there is no draft model. */
  readonly draftModel: DraftMemory | null;
  /** Whether the target's pages may be taken for a drafter's text now. */
  readonly mayBegin: () => boolean;
  /** ms */
  readonly now: () => number;
}

/** A chunk of a few tokens costs the middle level little more than one, and n-grams cost nothing. */
const NGRAM_TOKENS = 6;
/** gamma 1 of the paper's best row: a small model drafts two tokens for a pass of the middle level. */
const MODEL_TOKENS = 2;
/** What the draft model reads: TriForce's streaming cache, with a page of sink. */
const MODEL_SINK_TOKENS = 64;
const MODEL_LOCAL_TOKENS = 512;

const FULL: AttentionSettings = {
  attention: 'dense', tokenBudget: 0, sinkTokens: 0, localTokens: 0, streamingHeads: 0,
  selectionInterval: 1, selectionPerQueryHead: false, renumberPositions: false, sparsePrefill: false,
};

export function createDrafter(settings: DrafterSettings, parts: DrafterParts): Drafter {
  switch (settings.speculation) {
    case 'ngram': return new NgramDrafter();
    case 'triforce': return createMiddle(settings, parts);
    case 'rapid': return createRapid(settings, parts);
  }
}

function createMiddle({ draftBudget, draftLevel }: DrafterSettings, { target, draftModel, now }: DrafterParts): Drafter {
  const { engine } = target;
  const policy = createPageListPolicy({ ...FULL, attention: 'lserve', tokenBudget: draftBudget }, engine.spec);
  const lower = draftLevel === 'auto' ? (draftModel === null ? 'ngram' : 'model') : draftLevel;
  if (lower === 'none') return new MiddleDrafter({ engine, policy, lower: null, lowerTokens: 0, now });
  if (lower === 'ngram') return new MiddleDrafter({ engine, policy, lower: new NgramDrafter(), lowerTokens: NGRAM_TOKENS, now });
  if (draftModel === null) throw new Error("draft level 'model' was let through without a draft model");
  return new MiddleDrafter({ engine, policy, lower: createModel(draftModel), lowerTokens: MODEL_TOKENS, now });
}

/** A small model over the end of the text, from where drafting began. */
function createModel({ engine, kv }: DraftMemory): Drafter {
  const policy = createPageListPolicy({
    ...FULL, attention: 'streaming', sinkTokens: MODEL_SINK_TOKENS, localTokens: MODEL_LOCAL_TOKENS, renumberPositions: true,
  }, engine.spec);
  return new OwnTextDrafter({ level: 'model', engine, kv, sharesMemory: false, policy, open: endOfText, mayBegin: () => true });
}

/** The draft model if there is one, else the target itself (self-speculation), over what was retrieved. */
function createRapid({ draftLevel }: DrafterSettings, { target, draftModel, mayBegin }: DrafterParts): Drafter {
  const isSelf = draftModel === null || draftLevel === 'none';
  const { engine, kv } = isSelf ? target : draftModel;
  return new OwnTextDrafter({
    level: 'rapid', engine, kv, sharesMemory: isSelf, policy: createPageListPolicy(FULL, engine.spec),
    open: ({ draftPrompt, promptTokens }) => (draftPrompt.length === 0 ? null : { tokens: draftPrompt, origin: promptTokens }),
    mayBegin: isSelf ? mayBegin : () => true,
  });
}

/** The last token is computed by the first draft itself. */
function endOfText({ text, finalTokens }: ForeseenText): Opening | null {
  const end = Math.min(finalTokens, text.length - 1);
  const tokens = text.slice(Math.max(0, end - MODEL_SINK_TOKENS - MODEL_LOCAL_TOKENS), end);
  return tokens.length === 0 ? null : { tokens, origin: end };
}
