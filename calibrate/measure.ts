/**
 * Measures the KV heads of a checkpoint in fp32 on documents with questions: what they attend to while the right answers
 * are given token by token, and what the answers lose when heads stream. Knows no flags and no files but the checkpoint's.
 * Called by main.ts.
 */
import { join } from 'node:path';
import type { Engine } from '../engine/engine.ts';
import { readJsonFile } from '../engine/model/model-file-error.ts';
import { parseModelSpec, type ModelSpec } from '../engine/model/spec.ts';
import { Weights } from '../engine/model/weights.ts';
import { createOnnxEngine } from '../engine/onnx/onnx-engine.ts';
import type { QueryProbe } from '../engine/query-probe.ts';
import { DensePages } from '../kvcache/page-lists/dense.ts';
import { pagesFor } from '../kvcache/page-lists/lists.ts';
import { loadTextCodec } from '../tokenizer/text-codec.ts';
import { AnswerLoss, harmOf, type KindLosses } from './answer-loss.ts';
import { AttentionMass, rankByMass, type StreamingReach } from './attention-mass.ts';
import { chooseOrder, type ChosenOrder } from './choose-order.ts';
import { Reader } from './reader.ts';
import { joined, tokenizeDocument, type TokenizedDocument } from './tokens.ts';

export interface MeasureOptions {
  /** Folder of the checkpoint. */
  readonly model: string;
  readonly book: string;
  /** Tokens of the documents, about. */
  readonly lengths: readonly number[];
  /** Documents of each length: their kinds take turns. */
  readonly documents: number;
  readonly reach: StreamingReach;
  /** Sets of heads whose loss may be measured, about; 0: none is. */
  readonly maxEvaluations: number;
  readonly threads: number;
  readonly onProgress: (message: string) => void;
}

export interface Measurement {
  readonly kvHeads: number;
  readonly lengths: readonly number[];
  /** By length, then [layers * kvHeads]: mean over documents. */
  readonly mass: readonly Float64Array[];
  /** null where losses were not measured. */
  readonly chosen: ChosenOrder | null;
}

/** Documents have about as many tokens as they should, and questions with answers. */
const ROOM = 1.5;

/** Throws UnsupportedModelError or ModelFileError: one sentence each, for the operator. */
export async function measureHeads(options: MeasureOptions): Promise<Measurement> {
  const spec = parseModelSpec(await readJsonFile(join(options.model, 'config.json')));
  const codec = await loadTextCodec(options.model);
  const lengths = fittingLengths(spec, options);
  const probe = new AttentionMass(spec, options.reach);
  const engine = await probedEngine(options, spec, { probe, tokens: Math.max(...lengths) * ROOM });
  try {
    const documents = lengths.map((length) => Array.from({ length: options.documents }, (_, i) =>
      tokenizeDocument(codec, { book: options.book, seed: SEEDS_PER_LENGTH * length + i, length })));
    const mass = await massesOf(engine, probe, { documents, lengths }, options);
    const chosen = options.maxEvaluations === 0 ? null : await choose(engine, { documents: documents.flat(), mass }, options);
    return { kvHeads: spec.kvHeads, lengths, mass, chosen };
  } finally {
    await engine.close();
  }
}

/** A multiple of the number of kinds of documents, so that the first of every length is of the first kind. */
const SEEDS_PER_LENGTH = 3000;

/** Those that the context has room for; a bit less than all of it where none is. Throws RangeError for a model whose whole context a streaming head reads. */
function fittingLengths({ contextLength }: ModelSpec, { lengths, reach: { sinkTokens, windowTokens } }: MeasureOptions): readonly number[] {
  const fitting = lengths.filter((length) => length < contextLength);
  if (fitting.length > 0) return fitting;
  const nearlyAll = Math.floor(contextLength * 0.9);
  if (nearlyAll > sinkTokens + windowTokens) return [nearlyAll];
  throw new RangeError(`the model's context of ${contextLength} tokens leaves nothing outside ${sinkTokens} sinks and a window of ${windowTokens}`);
}

async function probedEngine({ model, threads }: MeasureOptions, spec: ModelSpec, { probe, tokens }: { probe: QueryProbe; tokens: number }): Promise<Engine> {
  const weights = await Weights.open(model, spec);
  try {
    return await createOnnxEngine({ spec, weights, precision: 'fp32', threads, pages: pagesFor(tokens), headOrder: null, probe });
  } finally {
    weights.close();
  }
}

/** By length: mean over its documents. */
async function massesOf(engine: Engine, probe: AttentionMass, { documents, lengths }: { documents: readonly TokenizedDocument[][]; lengths: readonly number[] }, { onProgress }: MeasureOptions): Promise<Float64Array[]> {
  const masses: Float64Array[] = [];
  for (const [i, ofLength] of documents.entries()) {
    const mean = new Float64Array(engine.spec.layers * engine.spec.kvHeads);
    for (const [number, document] of ofLength.entries()) {
      await readAnswers(engine, document);
      probe.take().forEach((share, head) => { mean[head]! += share / ofLength.length; });
      onProgress(`attention mass at ${lengths[i]!} tokens: document ${number + 1} of ${ofLength.length}`);
    }
    masses.push(mean);
  }
  return masses;
}

/** With dense attention: the document once, then each question, and the answer but for its end as a decode chunk. */
export async function readAnswers(engine: Engine, { shared, asked }: TokenizedDocument): Promise<void> {
  const reader = new Reader(engine, new DensePages(engine.spec));
  await reader.prefill(shared, 0, shared.length - 1);
  for (const { tokens, answerFrom } of asked) {
    const all = joined(shared, tokens);
    const answer = shared.length + answerFrom;
    await reader.prefill(all, shared.length - 1, answer - 1);
    await reader.decode(all, answer - 1, all.length - 1);
    reader.truncate(shared.length - 1);
  }
  reader.forget();
}

/** Nats an answer, mean over the kinds. Where one kind alone loses, of its answers that were certain one in thirty is lost. */
const TOLERANCE = 0.005;

/** Searches from the order of the masses on. */
async function choose(engine: Engine, { documents, mass }: { documents: readonly TokenizedDocument[]; mass: readonly Float64Array[] }, { reach, maxEvaluations, onProgress }: MeasureOptions): Promise<ChosenOrder> {
  const loss = new AnswerLoss(engine, documents, reach);
  const dense = await loss.of([]);
  onProgress(`all heads read everything: ${written(dense)}`);
  let evaluations = 0;
  return chooseOrder({
    ranked: rankByMass(mass).ranked,
    maxEvaluations, tolerance: TOLERANCE,
    harmOf: async (heads) => {
      const losses = await loss.of(heads);
      const harm = harmOf(losses, dense);
      onProgress(`set ${++evaluations}, about ${maxEvaluations} at most: ${heads.length} heads stream (${heads.map((head) => `${Math.floor(head / engine.spec.kvHeads)}.${head % engine.spec.kvHeads}`).join(' ')}), harm ${harm.toFixed(4)}: ${written(losses)}`);
      return harm;
    },
  });
}

function written(losses: KindLosses): string {
  return [...losses].map(([kind, loss]) => `${kind} ${loss.toFixed(3)}`).join(', ');
}
