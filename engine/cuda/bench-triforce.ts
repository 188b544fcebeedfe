/**
 * What TriForce gains (npm run bench:triforce): the shape of Llama-2-7B with random weights over a long text, its middle
 * level over few pages, a model of 68M parameters below it; each pass is computed, and what it proposes is set, so that
 * a level's tokens are accepted at a given rate. The drafter and the rule of verification are the server's own. Prints
 * what a pass of each level costs, the gain over plain dense decoding, and, last, one JSON line. Without a device it
 * says so.
 */
import { parseArgs } from 'node:util';
import { createPageListPolicy } from '../../kvcache/page-lists/create.ts';
import { PAGE_TOKENS, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import { emptyDraft, type Draft, type Drafter } from '../drafters/drafter.ts';
import { MiddleDrafter } from '../drafters/middle-drafter.ts';
import { rowsOf } from '../logit-row.ts';
import { parseModelSpec } from '../model/spec.ts';
import { newSamplerScratch, Sampler } from '../sampler.ts';
import { verify } from '../verify.ts';
import { whyNoCuda } from './availability.ts';
import { CudaEngine } from './cuda-engine.ts';
import type { SearchSettings } from './ffi/library-search.ts';
import type { KvFormat } from './kv-memory.ts';
import { RandomWeights, randomNumbers } from './random-weights.ts';
import { full, Script, ScriptedEngine, SEQUENCE, SMALL_TOKENS, SmallDrafter } from './scripted-levels.ts';

const LLAMA_2_7B = {
  model_type: 'llama', hidden_act: 'silu', num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 32, hidden_size: 4096,
  intermediate_size: 11008, vocab_size: 32000, max_position_embeddings: 262144, rms_norm_eps: 1e-5, rope_theta: 5_000_000,
};
/** The small model of the paper. */
const LLAMA_68M = { ...LLAMA_2_7B, num_hidden_layers: 2, num_attention_heads: 12, num_key_value_heads: 12, hidden_size: 768, intermediate_size: 3072 };
const WARM_UP_TOKENS = 24;

interface Options {
  readonly length: number;
  readonly budget: number;
  readonly tokens: number;
  readonly acceptances: readonly number[];
  /** At which the middle level accepts what the small model drafts. */
  readonly lowerAcceptance: number;
  readonly draftTokens: readonly number[];
  readonly lowerTokens: number;
  /** Of the target's KV memory. */
  readonly kvFormat: KvFormat;
}

interface Figure {
  readonly acceptance: number;
  readonly lower: boolean;
  readonly draftTokens: number;
  readonly tokensPerPass: number;
  readonly msPerToken: number;
  readonly gain: number;
}

class Bench {
  readonly engine: ScriptedEngine;
  readonly #small: CudaEngine;
  readonly #options: Options;
  readonly #length: number;
  readonly #dense: PageListPolicy;
  readonly #pageTable: Int32Array;

  constructor(target: CudaEngine, small: CudaEngine, options: Options) {
    this.engine = new ScriptedEngine(target, new Script(target.spec.vocab, { middle: 1, lower: 1, seed: 0 }));
    this.#small = small;
    this.#options = options;
    this.#length = Math.min(options.length, (target.pages - 1) * PAGE_TOKENS) - options.tokens - WARM_UP_TOKENS - 2 * Math.max(...options.draftTokens) - 2;
    this.#dense = createPageListPolicy(full, target.spec);
    this.#pageTable = Int32Array.from({ length: target.pages }, (_, i) => (i * 7919) % target.pages);
  }

  /** Tokens of the text when measuring begins. */
  get length(): number {
    return this.#length;
  }

  /** ms a token of plain dense decoding. */
  plain(): Promise<number> {
    return this.#generate(null, 0).then(({ msPerToken }) => msPerToken);
  }

  async triforce(acceptance: number, lower: boolean, draftTokens: number, plain: number): Promise<Figure> {
    const { budget, lowerAcceptance, lowerTokens } = this.#options;
    const script = new Script(this.engine.spec.vocab, { middle: acceptance, lower: lowerAcceptance, seed: Math.round(1000 * acceptance) });
    this.engine.script = script;
    const policy = createPageListPolicy({ ...full, attention: 'lserve', tokenBudget: budget }, this.engine.spec);
    const drafter = new MiddleDrafter({ engine: this.engine, policy, lower: lower ? new SmallDrafter(this.#small, script) : null, lowerTokens, now: () => performance.now() });
    const { msPerToken, tokensPerPass } = await this.#generate(drafter, draftTokens);
    return { acceptance, lower, draftTokens, tokensPerPass, msPerToken, gain: plain / msPerToken };
  }

  /** As scheduler/loop.ts goes on with one sequence: draft, one pass of the target, commit, truncate. */
  async #generate(drafter: Drafter | null, draftTokens: number): Promise<{ msPerToken: number; tokensPerPass: number }> {
    const { engine } = this;
    engine.forget(SEQUENCE);
    const sampler = greedySampler(engine.spec.vocab);
    const text = new Int32Array(this.#length + WARM_UP_TOKENS + this.#options.tokens + 2 * draftTokens + 2);
    let length = this.#length;
    let [began, from, passes] = [0, 0, 0];
    while (length < this.#length + WARM_UP_TOKENS + this.#options.tokens) {
      if (began === 0 && length >= this.#length + WARM_UP_TOKENS) [began, from, passes, engine.passes.length] = [performance.now(), length, 0, 0];
      const draft = drafter === null ? emptyDraft('') : (await drafter.draft([{
        sequenceId: SEQUENCE, text: text.subarray(0, length), finalTokens: length, promptTokens: this.#length, pageTable: this.#pageTable,
        maxTokens: draftTokens, patience: null, draftPrompt: new Int32Array(0), sampler: sampler.fork(),
      }]))[0]!;
      length = await this.#pass(text, length, draft, sampler);
      passes++;
    }
    return { msPerToken: (performance.now() - began) / (length - from), tokensPerPass: (length - from) / passes };
  }

  /** -> the text's new length */
  async #pass(text: Int32Array, length: number, draft: Draft, sampler: Sampler): Promise<number> {
    const { vocab } = this.engine.spec;
    const tokens = Int32Array.of(text[length - 1]!, ...draft.tokens);
    const start = length - 1;
    const attention = this.#dense.plan(this.#pageTable, start, tokens.length, 'decode');
    const result = await this.engine.run([{
      phase: 'decode', sequenceId: SEQUENCE, tokens, start, pageTable: this.#pageTable, attention, promptTokens: this.#length, logits: 'all', headTemperature: sampler.temperature,
    }]);
    const rows = rowsOf(result, 0, vocab);
    let end = length;
    for (let i = 0; i < tokens.length; i++) {
      const row = rows[i]!;
      const verdict = i < draft.tokens.length ? verify(row, { token: draft.tokens[i]!, distribution: null }, sampler) : { token: sampler.sample(row), accepted: false };
      sampler.accept(verdict.token);
      text[end++] = verdict.token;
      if (!verdict.accepted) break;
    }
    this.engine.truncate({ sequenceId: SEQUENCE, pageTable: this.#pageTable }, end - 1);
    return end;
  }
}

function greedySampler(vocab: number): Sampler {
  const settings = { temperature: 0, topP: 1, topK: 0, minP: 0, presencePenalty: 0, frequencyPenalty: 0, repetitionPenalty: 1, logitBias: [] };
  return new Sampler(settings, { seed: 1, promptIds: new Int32Array(0), stopTokenIds: [], minTokens: 0, reproducible: false, scratch: newSamplerScratch(vocab) });
}

/** Mean cost of a pass by level and tokens: 'target 1' -> ms. */
function costs(passes: ScriptedEngine['passes']): Map<string, number> {
  const sums = new Map<string, { total: number; count: number }>();
  for (const { level, tokens, milliseconds } of passes) {
    const key = `${level} ${tokens}`;
    const { total, count } = sums.get(key) ?? { total: 0, count: 0 };
    sums.set(key, { total: total + milliseconds, count: count + 1 });
  }
  return new Map([...sums].map(([key, { total, count }]) => [key, total / count]));
}

async function main(options: Options): Promise<void> {
  const libraries: SearchSettings = { folder: process.env['LONGSPAN_CUDA_LIBRARIES'] ?? '', environment: process.env };
  const reason = whyNoCuda(libraries);
  if (reason !== null) {
    print(`nothing measured: ${reason}`);
    print(JSON.stringify({ skipped: reason }));
    return;
  }
  const open = (config: object, pages: { exactly: number } | { atMost: number }, kvFormat: KvFormat = 'element'): CudaEngine => {
    const spec = parseModelSpec(config);
    const engine = new CudaEngine({ spec, weights: new RandomWeights(spec), headOrder: null, precision: 'fp16', kvFormat, pages, stepTokens: 64, libraries, fast: true });
    engine.kv.occupy(Array(engine.pages).keys(), randomNumbers('fp16', 1 << 24));
    return engine;
  };
  const small = open(LLAMA_68M, { exactly: SMALL_TOKENS / PAGE_TOKENS + 1 });
  const target = open(LLAMA_2_7B, { atMost: options.length / PAGE_TOKENS + 1 }, options.kvFormat);
  const bench = new Bench(target, small, options);
  const plain = await bench.plain();
  print(`${target.device.properties.name}${options.kvFormat === 'element' ? '' : `, KV memory in ${options.kvFormat}`}: text of ${bench.length} tokens, middle level reads ${options.budget}, a small model's tokens are accepted at ${options.lowerAcceptance}`);
  print(`plain dense decoding: ${plain.toFixed(2)} ms a token\n`);
  print(`${'accepted'.padEnd(10)}${'below'.padEnd(8)}${['drafted', 'tokens a pass', 'ms a token', 'gain'].map((name) => name.padStart(15)).join('')}   passes, ms`);
  const figures: (Figure & { passMilliseconds: object })[] = [];
  for (const acceptance of options.acceptances) {
    for (const lower of [false, true]) {
      for (const draftTokens of options.draftTokens) {
        const figure = await bench.triforce(acceptance, lower, draftTokens, plain);
        const passes = costs(bench.engine.passes);
        figures.push({ ...figure, passMilliseconds: Object.fromEntries(passes) });
        const cells = [String(draftTokens), figure.tokensPerPass.toFixed(2), figure.msPerToken.toFixed(2), figure.gain.toFixed(2)];
        print(`${String(acceptance).padEnd(10)}${(lower ? 'model' : '-').padEnd(8)}${cells.map((cell) => cell.padStart(15)).join('')}   ${[...passes].map(([key, ms]) => `${key}: ${ms.toFixed(2)}`).join(', ')}`);
      }
    }
  }
  await Promise.all([small.close(), target.close()]);
  print(JSON.stringify({ device: target.device.properties.name, options, plainMsPerToken: plain, figures }));
}

function readOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      length: { type: 'string', default: '131072' },
      budget: { type: 'string', default: '4096' },
      tokens: { type: 'string', default: '96' },
      acceptances: { type: 'string', default: '0.8,0.9,0.95' },
      'lower-acceptance': { type: 'string', default: '0.7' },
      'draft-tokens': { type: 'string', default: '4,7,12' },
      'lower-tokens': { type: 'string', default: '2' },
      'kv-precision': { type: 'string', default: 'auto' },
    },
  });
  const numbers = (text: string): number[] => text.split(',').map(Number);
  return {
    length: Number(values.length), budget: Number(values.budget), tokens: Number(values.tokens), acceptances: numbers(values.acceptances),
    lowerAcceptance: Number(values['lower-acceptance']), draftTokens: numbers(values['draft-tokens']), lowerTokens: Number(values['lower-tokens']),
    kvFormat: values['kv-precision'] === 'int8' || values['kv-precision'] === 'fp8' ? values['kv-precision'] : 'element',
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main(readOptions(process.argv.slice(2)));
