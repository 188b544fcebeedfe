/**
 * Runs needle prompts through a checkpoint in fp32 with dense attention, the right answer given token by
 * token, and measures what its heads attend to while answering. Knows no flags and no files but the
 * checkpoint's. Called by main.ts.
 */
import { join } from 'node:path';
import type { Chunk, Engine } from '../engine/engine.ts';
import { readJsonFile } from '../engine/model/model-file-error.ts';
import { parseModelSpec, type ModelSpec } from '../engine/model/spec.ts';
import { Weights } from '../engine/model/weights.ts';
import { createOnnxEngine } from '../engine/onnx/onnx-engine.ts';
import type { QueryProbe } from '../engine/query-probe.ts';
import { DensePages } from '../kvcache/page-lists/dense.ts';
import { pagesFor } from '../kvcache/page-lists/lists.ts';
import { ChatTemplateError } from '../tokenizer/chat-template.ts';
import { loadTextCodec, type TextCodec } from '../tokenizer/text-codec.ts';
import { AttentionMass, type StreamingReach } from './attention-mass.ts';
import { writeNeedlePrompt } from './needle-prompts.ts';

export interface MeasureOptions {
  /** Folder of the checkpoint. */
  readonly model: string;
  readonly book: string;
  /** Prompt tokens, about; null takes usual ones that the model's context has room for. */
  readonly lengths: readonly number[] | null;
  /** Prompts of each length. */
  readonly documents: number;
  readonly reach: StreamingReach;
  readonly threads: number;
  /** Told after each document. */
  onProgress(message: string): void;
}

export interface Measurement {
  readonly layers: number;
  readonly kvHeads: number;
  readonly lengths: readonly number[];
  /** By length, then [layers * kvHeads]: mean over documents. */
  readonly mass: readonly Float64Array[];
}

/** A prompt in tokens, and where the answer begins. */
export interface MeasuredText {
  readonly tokens: Int32Array;
  readonly promptTokens: number;
}

const USUAL_LENGTHS = [4000, 8000, 16_000];
const CHUNK_TOKENS = 512;
/** Prompts have about as many tokens as they should, and an answer. */
const ROOM = 1.5;

/** Throws UnsupportedModelError or ModelFileError: one sentence each, for the operator. */
export async function measureHeads(options: MeasureOptions): Promise<Measurement> {
  const spec = parseModelSpec(await readJsonFile(join(options.model, 'config.json')));
  const codec = await loadTextCodec(options.model);
  const lengths = options.lengths ?? usualLengths(spec, options.reach);
  const longest = Math.max(...lengths);
  if (longest > spec.contextLength) throw new RangeError(`the model's context of ${spec.contextLength} tokens is too short for prompts of ${longest}`);
  const probe = new AttentionMass(spec, options.reach);
  const engine = await probedEngine(options, spec, { probe, tokens: longest * ROOM });
  try {
    const mass: Float64Array[] = [];
    for (const length of lengths) mass.push(await meanOverDocuments(options, { engine, codec, probe }, length));
    return { layers: spec.layers, kvHeads: spec.kvHeads, lengths, mass };
  } finally {
    await engine.close();
  }
}

/** Throws RangeError for a model whose whole context a streaming head reads. */
function usualLengths({ contextLength }: ModelSpec, { sinkTokens, windowTokens }: StreamingReach): readonly number[] {
  const fitting = USUAL_LENGTHS.filter((length) => length < contextLength);
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

async function meanOverDocuments(options: MeasureOptions, { engine, codec, probe }: { engine: Engine; codec: TextCodec; probe: AttentionMass }, length: number): Promise<Float64Array> {
  const mean = new Float64Array(engine.spec.layers * engine.spec.kvHeads);
  for (let i = 0; i < options.documents; i++) {
    const text = needleText(codec, options.book, { seed: length * 1000 + i, length });
    await readText(engine, text);
    probe.take().forEach((share, head) => { mean[head]! += share / options.documents; });
    options.onProgress(`${text.promptTokens} tokens: document ${i + 1} of ${options.documents}`);
  }
  return mean;
}

/** A prompt of about `length` tokens: characters per token are those of a first try. */
function needleText(codec: TextCodec, book: string, { seed, length }: { seed: number; length: number }): MeasuredText {
  const charsOf = (chars: number): number => chars * length / encode(codec, writeNeedlePrompt(book, seed, chars).question).length;
  const { question, answer } = writeNeedlePrompt(book, seed, Math.floor(charsOf(charsOf(3 * length))));
  const prompt = encode(codec, question);
  const spoken = codec.tokenizer.encode(answer, { special: 'plain' });
  const tokens = new Int32Array(prompt.length + spoken.length);
  tokens.set(prompt);
  tokens.set(spoken, prompt.length);
  return { tokens, promptTokens: prompt.length };
}

/** As a chat where the model has a template for it. */
function encode(codec: TextCodec, question: string): Int32Array {
  try {
    return codec.encodeChat([{ role: 'user', content: question }], {});
  } catch (error) {
    if (!(error instanceof ChatTemplateError)) throw error;
    return codec.encodePrompt(`${question}\n`, { addSpecial: true });
  }
}

/** Prefill up to the prompt's last token, then that and the answer but for its end: the queries that give the answer. */
export async function readText(engine: Engine, { tokens, promptTokens }: MeasuredText): Promise<void> {
  const policy = new DensePages(engine.spec);
  const pageTable = Int32Array.from({ length: pagesFor(tokens.length) }, (_, page) => page);
  const read = async (start: number, end: number, phase: Chunk['phase']): Promise<void> => {
    const attention = policy.plan(pageTable, start);
    await engine.run([{ phase, sequenceId: 0, tokens: tokens.subarray(start, end), start, pageTable, attention, promptTokens, logits: 'none' }]);
  };
  for (let start = 0; start < promptTokens - 1; start += CHUNK_TOKENS) {
    await read(start, Math.min(start + CHUNK_TOKENS, promptTokens - 1), 'prefill');
  }
  await read(promptTokens - 1, tokens.length - 1, 'decode');
  engine.forget(0);
}
