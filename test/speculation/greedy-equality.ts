/**
 * Greedy answers of the bundled model in fp32 with every kind of drafting against those of plain dense decoding, through
 * the scheduler, several sequences at a time. Knows no HTTP. Called by a test with few prompts, and with 200 by
 * `npm run check:speculation`.
 */
import { readFileSync } from 'node:fs';
import { createEngine, type CreateEngineOptions } from '../../engine/create.ts';
import type { Engine } from '../../engine/engine.ts';
import { NO_SPECULATION, type SpeculationSettings } from '../../scheduler/messages.ts';
import { packagePath } from '../../server/package.ts';
import { loadTokenizer } from '../../tokenizer/tokenizer.ts';
import { bench, drafting, request } from '../scheduler/build.ts';
import { SeededRandom } from '../seeded-random.ts';

export interface Comparison {
  readonly name: string;
  readonly prompts: number;
  /** Prompts whose answer is not that of plain decoding, with the first place where they differ. */
  readonly different: readonly { readonly prompt: number; readonly at: number }[];
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
}

const MODEL = packagePath('models/longspan-16m');
const SEQUENCES = 8;
const PROMPT_TOKENS = { least: 330, most: 700 };

const kinds: readonly [string, Partial<SpeculationSettings>][] = [
  ['ngram', { speculation: 'ngram' }],
  ['triforce, middle level alone', { speculation: 'triforce', draftLevel: 'none' }],
  ['triforce over n-grams', { speculation: 'triforce', draftLevel: 'ngram' }],
  ['triforce over a draft model', { speculation: 'triforce', draftLevel: 'model' }],
  ['rapid', { speculation: 'rapid' }],
  ['rapid, drafting for itself', { speculation: 'rapid', draftLevel: 'none' }],
];

/** `from`: so many of the prompts are left out, the first ones: they were compared before. */
export async function compareGreedy({ prompts, from = 0, maxTokens, threads }: { prompts: number; from?: number; maxTokens: number; threads: number }): Promise<Comparison[]> {
  const texts = (await bookPrompts(from + prompts)).slice(from);
  const options: Omit<CreateEngineOptions, 'kvTokens'> = {
    engine: 'onnx', model: MODEL, precision: 'fp32', threads, maxModelLen: 0, headFile: '', fakeStepMs: 0,
    kvPrecision: 'auto', cudaLibraries: '', cudaKernels: 'plain', maxSequences: SEQUENCES, stepTokens: 512,
  };
  const create = (kvTokens: number): Promise<Engine> => createEngine({ ...options, kvTokens });
  const [engine, draftEngine] = [await create(32_768), await create(16_384)];
  const answers = (kind: Partial<SpeculationSettings> | null) => answersOf({ engine, draftEngine, texts, maxTokens, kind });
  const plain = await answers(null);
  const comparisons: Comparison[] = [];
  for (const [name, kind] of kinds) {
    const { tokens, draftedTokens, acceptedTokens } = await answers(kind);
    const different = tokens.flatMap((answer, prompt) => {
      const at = plain.tokens[prompt]!.findIndex((token, i) => token !== answer[i]);
      return at < 0 && answer.length === plain.tokens[prompt]!.length ? [] : [{ prompt: from + prompt, at }];
    });
    comparisons.push({ name, prompts, different, draftedTokens, acceptedTokens });
  }
  await engine.close();
  await draftEngine.close();
  return comparisons;
}

interface Question {
  readonly engine: Engine;
  readonly draftEngine: Engine;
  readonly texts: readonly Int32Array[];
  readonly maxTokens: number;
  /** null decodes plainly. */
  readonly kind: Partial<SpeculationSettings> | null;
}

async function answersOf({ engine, draftEngine, texts, maxTokens, kind }: Question) {
  const busy = bench({ engine, draftEngine, maxSequences: SEQUENCES });
  texts.forEach((promptIds, id) => {
    const speculation = kind === null ? NO_SPECULATION : drafting({ draftTokens: 5, draftPromptIds: promptIds.slice(-200), ...kind });
    busy.submit(request(id, { promptIds, maxTokens, speculation }));
  });
  await busy.finish();
  busy.loop.checkIntegrity();
  const sum = (name: 'draftedTokens' | 'acceptedTokens'): number => busy.counters.reduce((total, counters) => total + counters[name], 0);
  return { tokens: texts.map((_, id) => busy.tokensOf(id)), draftedTokens: sum('draftedTokens'), acceptedTokens: sum('acceptedTokens') };
}

/** Stretches of a book, longer than the middle level's budget. */
async function bookPrompts(count: number): Promise<Int32Array[]> {
  const tokenizer = await loadTokenizer(MODEL);
  const ids = tokenizer.encode(readFileSync(packagePath('loadtest/texts/pride-and-prejudice.txt'), 'utf8'), { special: 'plain' });
  const random = new SeededRandom(20);
  return Array.from({ length: count }, () => {
    const length = PROMPT_TOKENS.least + random.below(PROMPT_TOKENS.most - PROMPT_TOKENS.least);
    const from = random.below(ids.length - length);
    return ids.slice(from, from + length);
  });
}
