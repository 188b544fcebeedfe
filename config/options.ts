/**
 * THE table of options. Flags, LONGSPAN_* variables, the YAML file, --help and docs/config.md all come from it.
 * It knows names, types, bounds and sentences; it reads nothing (load.ts) and prints nothing (describe.ts).
 */

export const groups = ['Model', 'Attention', 'Speculation', 'Scheduling', 'HTTP', 'Process'] as const;

interface Common {
  readonly group: (typeof groups)[number];
  /** What it does, for --help and docs/config.md. */
  readonly sentence: string;
  /** Never shown; --help recommends the environment for it. */
  readonly secret?: true;
  /** Makes sense on the command line only. */
  readonly flagOnly?: true;
}

export type Option = Common &
  (
    | { readonly kind: 'text'; readonly default: string }
    | { readonly kind: 'integer' | 'number'; readonly default: number; readonly min: number; readonly max: number }
    | { readonly kind: 'switch'; readonly default: boolean }
    | { readonly kind: 'choice'; readonly default: string; readonly values: readonly string[] }
    /** Separated by commas on the command line and in the environment. */
    | { readonly kind: 'list'; readonly default: readonly string[] }
  );

const MAX_TOKENS = 2 ** 31 - 1;

export const options = {
  model: { group: 'Model', kind: 'text', default: '', sentence: 'Folder of the checkpoint in Hugging Face format (config.json, safetensors, tokenizer.json). Empty serves the bundled model.' },
  servedModelName: { group: 'Model', kind: 'text', default: '', sentence: 'Name of the model in the API. Empty takes the name of its folder.' },
  engine: { group: 'Model', kind: 'choice', values: ['auto', 'onnx', 'cuda', 'fake', 'reference'], default: 'auto', sentence: 'What computes: auto is cuda, an NVIDIA GPU, where there is one, else onnx, the CPU; fake needs no weights and makes up tokens; reference is slow and exact.' },
  precision: { group: 'Model', kind: 'choice', values: ['auto', 'int8', 'fp32', 'bf16', 'fp16', 'fp8'], default: 'auto', sentence: 'Number format: int8 or fp32 on the CPU; on a GPU fp16 (weights of bf16 checkpoints keep all their bits), bf16 (coarser, with the range of float32), or fp8 weights. auto is int8 on the CPU and fp16 on a GPU.' },
  kvPrecision: { group: 'Model', kind: 'choice', values: ['auto', 'fp16', 'bf16', 'fp8', 'int8'], default: 'auto', sentence: 'Number format of KV memory on a GPU: that of the activations, or 8 bits with a scale for each token, which holds nearly twice as many tokens. auto is the format of the activations; the CPU follows precision.' },
  cudaLibraries: { group: 'Model', kind: 'text', default: '', sentence: 'Folder of the CUDA libraries (libcuda, libnvrtc, libcublasLt). Empty looks in LD_LIBRARY_PATH, the CUDA toolkit and the nvidia folders of Python environments.' },
  cudaKernels: { group: 'Model', kind: 'choice', values: ['plain', 'fast'], default: 'fast', sentence: 'Kernels of the cuda engine: plain ones for every chip, or fast ones too where the chip has them (instructions of Hopper, layers of few rows, early launches).' },
  threads: { group: 'Model', kind: 'integer', min: 0, max: 1024, default: 0, sentence: 'Threads of the CPU engine. 0 chooses by the number of cores.' },
  maxModelLen: { group: 'Model', kind: 'integer', min: 0, max: MAX_TOKENS, default: 0, sentence: 'Longest prompt plus answer, in tokens. 0 takes what the model was trained for.' },
  kvTokens: { group: 'Model', kind: 'integer', min: 0, max: MAX_TOKENS, default: 0, sentence: 'KV memory, in tokens. 0 lets the engine choose by free memory.' },
  headFile: { group: 'Model', kind: 'text', default: '', sentence: 'File that ranks the KV heads from streaming to retrieval. Empty looks for heads.json in the model folder, then for what npm run calibrate left in the cache folder.' },
  fakeStepMs: { group: 'Model', kind: 'number', min: 0, max: 60_000, default: 0, sentence: 'Milliseconds that a step of the fake engine takes.' },

  attention: { group: 'Attention', kind: 'choice', values: ['dense', 'streaming', 'lserve'], default: 'dense', sentence: 'What attention reads unless a request says otherwise: everything, sinks and a window, or the pages that score best.' },
  tokenBudget: { group: 'Attention', kind: 'integer', min: 320, max: MAX_TOKENS, default: 4096, sentence: 'lserve: tokens that a retrieval head reads in each step.' },
  sinkTokens: { group: 'Attention', kind: 'integer', min: 0, max: 65_536, default: 128, sentence: 'lserve: tokens at the start of the text that streaming heads always read.' },
  streamingSinkTokens: { group: 'Attention', kind: 'integer', min: 0, max: 65_536, default: 4, sentence: 'streaming: tokens at the start of the text that are always read, in whole pages: 4 keep 64.' },
  localTokens: { group: 'Attention', kind: 'integer', min: 64, max: MAX_TOKENS, default: 1024, sentence: 'Most recent tokens that streaming heads always read.' },
  streamingHeads: { group: 'Attention', kind: 'number', min: 0, max: 1, default: 0, sentence: 'lserve: share of the KV heads that read only sinks and window. Needs a head file.' },
  selectionInterval: { group: 'Attention', kind: 'integer', min: 1, max: 64, default: 1, sentence: 'lserve: decode steps that share one selection of pages; more are faster and find less.' },
  selectionPerQueryHead: { group: 'Attention', kind: 'switch', default: false, sentence: 'lserve: in decode each query head picks its own pages; otherwise the query heads of a KV head pick together.' },
  renumberPositions: { group: 'Attention', kind: 'switch', default: true, sentence: 'streaming: number positions inside what is read instead of in the text, for texts longer than the model was trained on.' },
  sparsePrefill: { group: 'Attention', kind: 'switch', default: true, sentence: 'lserve: select pages in prefill too. Off reads everything there.' },

  speculation: { group: 'Speculation', kind: 'choice', values: ['off', 'ngram', 'triforce', 'rapid'], default: 'off', sentence: 'How tokens are drafted, for the model to verify, unless a request says otherwise: from the text itself, by sparse reading of it, or by a drafter that reads what is retrieved from it.' },
  draftModel: { group: 'Speculation', kind: 'text', default: '', sentence: 'Folder of a second checkpoint with the same vocabulary, smaller or larger, that drafts for the served model. Empty loads none.' },
  draftTokens: { group: 'Speculation', kind: 'integer', min: 1, max: 64, default: 16, sentence: 'Most tokens drafted for one pass of the model; fewer are drafted where fewer pay.' },
  draftBudget: { group: 'Speculation', kind: 'integer', min: 320, max: MAX_TOKENS, default: 1024, sentence: 'triforce: tokens that its middle level reads in each step.' },
  ragTokens: { group: 'Speculation', kind: 'integer', min: 256, max: 65_536, default: 4096, sentence: 'rapid: tokens of retrieved text that its drafter reads. Prompts of at most twice as many are decoded without it.' },
  ragChunkTokens: { group: 'Speculation', kind: 'integer', min: 16, max: 4096, default: 128, sentence: 'rapid: tokens of the chunks that a text is cut into for retrieval.' },
  embeddingModel: { group: 'Speculation', kind: 'text', default: '', sentence: 'Folder of an embedding model (model.onnx, tokenizer.json) that ranks chunks for rapid. Empty ranks them by BM25.' },

  maxSequences: { group: 'Scheduling', kind: 'integer', min: 1, max: 4096, default: 64, sentence: 'Sequences that may run at the same time.' },
  stepTokens: { group: 'Scheduling', kind: 'integer', min: 0, max: 65_536, default: 0, sentence: 'Tokens computed in one step at most, prefill and decode together. 0 takes 512 on the CPU and 8192 on a GPU.' },
  targetGapMs: { group: 'Scheduling', kind: 'number', min: 1, max: 60_000, default: 100, sentence: 'Wanted bound on the gap between two tokens of a stream while other prompts are prefilled.' },
  prefixCache: { group: 'Scheduling', kind: 'switch', default: true, sentence: 'Keep the KV pages of earlier prompts and reuse them for equal beginnings.' },
  maxQueuedRequests: { group: 'Scheduling', kind: 'integer', min: 1, max: 1_000_000, default: 256, sentence: 'Requests that may wait; further ones are answered 429.' },
  maxQueuedTokens: { group: 'Scheduling', kind: 'integer', min: 1, max: MAX_TOKENS, default: 4_194_304, sentence: 'Prompt tokens that may wait; further requests are answered 429.' },
  maxChoices: { group: 'Scheduling', kind: 'integer', min: 1, max: 128, default: 16, sentence: 'Largest n (answers to one prompt) that a request may ask.' },
  tokenizerThreads: { group: 'Scheduling', kind: 'integer', min: 1, max: 64, default: 2, sentence: 'Worker threads that tokenise long texts.' },

  host: { group: 'HTTP', kind: 'text', default: '127.0.0.1', sentence: 'Address to listen on. 0.0.0.0 accepts connections from other machines.' },
  port: { group: 'HTTP', kind: 'integer', min: 0, max: 65_535, default: 8000, sentence: 'Port to listen on. 0 takes any free one.' },
  apiKeys: { group: 'HTTP', kind: 'list', secret: true, default: [], sentence: 'API keys that clients may send as Bearer token, each as KEY or NAME:KEY. No keys at all leaves the API open.' },
  apiKeysFile: { group: 'HTTP', kind: 'text', default: '', sentence: 'File of further API keys, one KEY or NAME:KEY a line; # starts a comment.' },
  corsOrigin: { group: 'HTTP', kind: 'list', default: [], sentence: 'Origins that browsers may call from; * allows all. None turns CORS off.' },
  bodyLimitBytes: { group: 'HTTP', kind: 'integer', min: 1024, max: 1_073_741_824, default: 67_108_864, sentence: 'Largest request body.' },
  sseKeepAliveMs: { group: 'HTTP', kind: 'integer', min: 0, max: 3_600_000, default: 10_000, sentence: 'A silent stream gets a comment line each time this has passed, so that proxies keep it open. 0 sends none.' },

  drainSeconds: { group: 'Process', kind: 'number', min: 0, max: 86_400, default: 30, sentence: 'How long running requests may go on after SIGTERM or SIGINT.' },
  logLevel: { group: 'Process', kind: 'choice', values: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], default: 'info', sentence: 'Least severe log lines that are written. Prompts and answers are never logged.' },
  accessLog: { group: 'Process', kind: 'switch', default: true, sentence: 'Log one line for each request.' },
  config: { group: 'Process', kind: 'text', default: '', sentence: 'YAML file of options, named as the flags are, without the dashes in front.' },
  help: { group: 'Process', kind: 'switch', flagOnly: true, default: false, sentence: 'Show this text.' },
  version: { group: 'Process', kind: 'switch', flagOnly: true, default: false, sentence: 'Show the version.' },
} as const satisfies Record<string, Option>;

type ValueOf<O> = O extends { kind: 'choice'; values: readonly (infer V)[] } ? V
  : O extends { kind: 'text' } ? string
  : O extends { kind: 'switch' } ? boolean
  : O extends { kind: 'list' } ? readonly string[]
  : number;

export type OptionName = keyof typeof options;

/** The validated configuration: every option with its value. Frozen; built once by load.ts. */
export type Config = { readonly [Name in OptionName]: ValueOf<(typeof options)[Name]> };

export const optionNames = Object.keys(options) as OptionName[];

/** maxModelLen -> max-model-len: the flag without its dashes, and the key in a YAML file. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`);
}

/** maxModelLen -> LONGSPAN_MAX_MODEL_LEN */
export function variableName(name: string): string {
  return `LONGSPAN_${flagName(name).replaceAll('-', '_').toUpperCase()}`;
}

/** The bounds of an option in words: what load.ts demands and describe.ts shows. */
export function allowed(option: Option): string {
  switch (option.kind) {
    case 'text': return 'text';
    case 'list': return 'a list separated by commas';
    case 'switch': return 'true or false';
    case 'choice': return `one of ${option.values.join(', ')}`;
    case 'integer': return `an integer from ${option.min} to ${option.max}`;
    case 'number': return `a number from ${option.min} to ${option.max}`;
  }
}
