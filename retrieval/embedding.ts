/**
 * Chunks by the angle between their embedding and the question's, from an ONNX model that the operator gives: the mean
 * of its last hidden states over the text, or the one vector that it gives itself. Knows ONNX Runtime, no chat.
 * Made by retrieval-worker.ts.
 */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { ModelFileError, readTokenizerConfig, readTokenizerJson } from '../tokenizer/model-files.ts';
import type { Ranker } from './ranker.ts';

/** What sentence encoders are trained on; longer chunks are cut. */
const MAX_TOKENS = 512;
const TEXTS_PER_RUN = 16;

export class EmbeddingRanker implements Ranker {
  readonly name = 'embedding';
  readonly #session: InferenceSession;
  readonly #tokenizer: Tokenizer;

  private constructor(session: InferenceSession, tokenizer: Tokenizer) {
    this.#session = session;
    this.#tokenizer = tokenizer;
  }

  /** Reads model.onnx and tokenizer.json of `dir`, and tokenizer_config.json where there is one; throws ModelFileError. */
  static async open(dir: string, { threads }: { readonly threads: number }): Promise<EmbeddingRanker> {
    const file = join(dir, 'model.onnx');
    await access(file).catch((error: unknown) => { throw new ModelFileError(file, 'is missing', error); });
    const tokenizer = await openTokenizer(dir);
    const session = await InferenceSession.create(file, { intraOpNumThreads: threads }).catch((error: unknown) => {
      throw new ModelFileError(file, `cannot be loaded: ${messageOf(error)}`, error);
    });
    refuseOtherInputs(file, session.inputNames);
    return new EmbeddingRanker(session, tokenizer);
  }

  /** Cosines, so from -1 to 1. */
  async rank(question: string, chunks: readonly string[]): Promise<Float64Array> {
    const [asked] = await this.#embed([question]);
    const scores = new Float64Array(chunks.length);
    for (let start = 0; start < chunks.length; start += TEXTS_PER_RUN) {
      const embedded = await this.#embed(chunks.slice(start, start + TEXTS_PER_RUN));
      embedded.forEach((vector, i) => { scores[start + i] = dot(asked!, vector); });
    }
    return scores;
  }

  /** Unit vectors. [texts][width] */
  async #embed(texts: readonly string[]): Promise<Float32Array[]> {
    const ids = texts.map((text) => shortened(this.#tokenizer.encode(text).ids));
    const { feeds, mask } = inputsOf(ids, this.#session.inputNames);
    const outputs = await this.#session.run(feeds);
    const { outputNames } = this.#session;
    const name = outputNames.find((output) => output === 'sentence_embedding') ?? outputNames[0]!;
    return ids.map((_, row) => unit(pooled(outputs[name]!, mask, row)));
  }
}

async function openTokenizer(dir: string): Promise<Tokenizer> {
  const [json, config] = await Promise.all([readTokenizerJson(dir), readTokenizerConfig(dir)]);
  try {
    return new Tokenizer(json, config);
  } catch (error) {
    throw new ModelFileError(join(dir, 'tokenizer.json'), `cannot be used: ${messageOf(error)}`, error);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const KNOWN_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'];

function refuseOtherInputs(file: string, names: readonly string[]): void {
  const other = names.find((name) => !KNOWN_INPUTS.includes(name));
  if (other === undefined && names.includes('input_ids')) return;
  throw new ModelFileError(file, `is no text embedding model: it must take input_ids, and of others only attention_mask and token_type_ids; it takes ${names.join(', ')}`);
}

/** The last id is the tokenizer's end mark, where it has one. */
function shortened(ids: readonly number[]): readonly number[] {
  return ids.length <= MAX_TOKENS ? ids : [...ids.slice(0, MAX_TOKENS - 1), ids.at(-1)!];
}

interface Inputs {
  readonly feeds: Record<string, Tensor>;
  /** 1 where a token is, 0 where a row is filled up. [rows, width] */
  readonly mask: BigInt64Array;
}

/** Rows are filled up with token 0 to the longest; what is there does not count, since the mask is 0. */
function inputsOf(ids: readonly (readonly number[])[], names: readonly string[]): Inputs {
  const width = Math.max(1, ...ids.map((row) => row.length));
  const tokens = new BigInt64Array(ids.length * width);
  const mask = new BigInt64Array(ids.length * width);
  ids.forEach((row, i) => {
    row.forEach((id, j) => {
      tokens[i * width + j] = BigInt(id);
      mask[i * width + j] = 1n;
    });
  });
  const data: Record<string, BigInt64Array> = { input_ids: tokens, attention_mask: mask, token_type_ids: new BigInt64Array(tokens.length) };
  return { mask, feeds: Object.fromEntries(names.map((name) => [name, new Tensor('int64', data[name]!, [ids.length, width])])) };
}

/** Row `row` of a [rows, width] output, or the mean over the tokens of a [rows, tokens, width] one. [width] */
function pooled({ data, dims }: Tensor, mask: BigInt64Array, row: number): Float32Array {
  const values = data as Float32Array;
  const width = dims.at(-1)!;
  if (dims.length === 2) return values.slice(row * width, (row + 1) * width);
  const numTokens = dims[1]!;
  const sum = new Float32Array(width);
  for (let token = 0; token < numTokens; token++) {
    if (mask[row * numTokens + token] === 0n) continue;
    const start = (row * numTokens + token) * width;
    for (let i = 0; i < width; i++) sum[i]! += values[start + i]!;
  }
  return sum;
}

/** The direction of a vector; 0 stays 0. The mean and the sum have the same. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(dot(vector, vector));
  return length === 0 ? vector : vector.map((value) => value / length);
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
