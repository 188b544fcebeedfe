/**
 * RAPID's retrieval (arXiv 2502.20330): from a long prompt to the short one that the drafter reads. Finds question and
 * documents, cuts, ranks, takes the best chunks, renders and tokenises. Knows no threads, no HTTP and no engine.
 * retrieval-worker.ts runs it, once per request.
 */
import { ChatTemplateError, type ChatMessage, type ChatOptions } from '../tokenizer/chat-template.ts';
import type { TextCodec } from '../tokenizer/text-codec.ts';
import { chooseChunks, cutIntoChunks, joinChunks } from './chunks.ts';
import { findQuestion, type Sources } from './question.ts';
import type { Ranker } from './ranker.ts';

/** A conversation, or (null) a raw prompt, whose documents and question the request gives. */
export interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly options: ChatOptions;
}

export interface RetrievalRequest {
  readonly conversation: Conversation | null;
  readonly question: string | null;
  readonly documents: readonly string[] | null;
  /** Tokens of all chunks together at most. */
  readonly budgetTokens: number;
  readonly chunkTokens: number;
}

export interface RetrievalReport {
  /** Chunks chosen, of how many, and their tokens. */
  readonly chunks: number;
  readonly chunksOf: number;
  readonly tokens: number;
  readonly rankedBy: Ranker['name'];
  readonly questionFrom: Sources['questionFrom'];
  readonly documentsFrom: Sources['documentsFrom'];
}

export type Retrieved =
  | { readonly promptIds: Int32Array; readonly report: RetrievalReport }
  /** Nothing to read instead of the prompt, and why. */
  | { readonly promptIds: null; readonly reason: string };

export interface RetrievalParts {
  readonly codec: TextCodec;
  readonly ranker: Ranker;
}

export async function retrieve(request: RetrievalRequest, { codec, ranker }: RetrievalParts): Promise<Retrieved> {
  const plan = draftPlan(request, codec);
  if (plan === null) return { promptIds: null, reason: 'no question was found: the last user message ends in a long paragraph; long_context.question gives one' };
  const { question, documents, questionFrom, documentsFrom } = plan.sources;
  const cutting = { tokenizer: codec.tokenizer, chunkTokens: request.chunkTokens };
  const chunks = documents.flatMap((text, document) => cutIntoChunks(text, document, cutting));
  const scores = await ranker.rank(question, chunks.map(({ text }) => text));
  const chosen = chooseChunks(chunks, scores, request.budgetTokens);
  if (chosen.length === 0) return { promptIds: null, reason: 'no chunk of the document has to do with the question' };
  const tokens = chosen.reduce((total, chunk) => total + chunk.tokens, 0);
  const report = { chunks: chosen.length, chunksOf: chunks.length, tokens, rankedBy: ranker.name, questionFrom, documentsFrom };
  return encoded(plan, joinChunks(chosen), report);
}

interface DraftPlan {
  readonly sources: Sources;
  /** The prompt around what is retrieved. Throws ChatTemplateError. */
  encode(context: string): Int32Array;
}

function draftPlan({ conversation, question, documents, budgetTokens }: RetrievalRequest, codec: TextCodec): DraftPlan | null {
  if (conversation === null) return rawPlan(question ?? '', documents ?? [], codec);
  const found = findQuestion(conversation.messages, { question, documents, isLong: longerThan(budgetTokens / 2, codec) });
  return found === null ? null : { sources: found, encode: (context) => codec.encodeChat(found.rebuild(context), conversation.options) };
}

function rawPlan(question: string, documents: readonly string[], codec: TextCodec): DraftPlan {
  return {
    sources: { question, documents, questionFrom: 'request', documentsFrom: 'request' },
    encode: (context) => codec.encodePrompt(`${context}\n\n${question}`, { addSpecial: true }),
  };
}

/** What is longer than half of the budget is no question and no instruction, but a text to retrieve from. */
function longerThan(tokens: number, { tokenizer }: TextCodec): (text: string) => boolean {
  return (text) => Buffer.byteLength(text) > tokens && tokenizer.encode(text, { special: 'plain' }).length > tokens;
}

function encoded(plan: DraftPlan, context: string, report: RetrievalReport): Retrieved {
  try {
    return { promptIds: plan.encode(context), report };
  } catch (error) {
    if (error instanceof ChatTemplateError) return { promptIds: null, reason: `the shortened conversation cannot be rendered: ${error.message}` };
    throw error;
  }
}
