/**
 * Which KV heads of a checkpoint can do with sinks and a window? `npm run calibrate -- --help`: measures it
 * without training and writes the head file that `--streaming-heads` needs.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { headFilePlaces } from '../engine/model/head-file.ts';
import { describeHeads, formatHeadFile, writeHeadFile, type HeadFile } from './head-file.ts';
import { measureHeads } from './measure.ts';

const USAGE = `npm run calibrate -- [options]
  --model DIR        folder of the checkpoint                      the bundled model
  --out FILE         where to write      heads.json beside the model, or the cache folder if that cannot be written to
  --method M         mass: attention outside sinks and window while answering; loss: what right answers lose while heads
                     stream, the order of mass as far as that is nothing, then always the head that adds least        loss
  --lengths L,L      tokens of the documents     4000,8000, for mass 4000,8000,16000, as far as the model's context allows
  --documents N      documents of each length; three kinds take turns                                 3, for mass 6
  --evaluations N    for loss: about how many sets of heads to measure at most; where more than a quarter
                     as many heads are left to order, they are measured in groups                     96
  --threads N        0 chooses by the number of cores              0
Needs memory for the weights in float32 and for the KV memory of the longest document. An evaluation reads all documents.`;

const FLAGS = {
  model: { type: 'string', default: fileURLToPath(new URL('../models/longspan-16m', import.meta.url)) },
  out: { type: 'string' },
  method: { type: 'string', default: 'loss' },
  lengths: { type: 'string' },
  documents: { type: 'string' },
  evaluations: { type: 'string', default: '96' },
  threads: { type: 'string', default: '0' },
  help: { type: 'boolean', default: false },
} as const;

/** What a streaming head is taken to read. */
const REACH = { sinkTokens: 128, windowTokens: 1024 };
const LEAST_LENGTH = REACH.sinkTokens + REACH.windowTokens + 1;

const METHODS = {
  loss: {
    lengths: '4000,8000', documents: '3',
    words: `Harm: loss of a right answer (nats, from its first token that had to be looked up on; of going on with the text, nats a token) over that of dense attention, mean over the kinds of questions, while heads read the first ${REACH.sinkTokens} tokens and the last ${REACH.windowTokens}, in prefill too; ascending attention mass as far as there is none, then always the head that adds least, then exchanges while the first half loses less; fp32`,
  },
  mass: {
    lengths: '4000,8000,16000', documents: '6',
    words: `Attention mass outside the first ${REACH.sinkTokens} tokens and the last ${REACH.windowTokens}, mean over the queries that give the answers, ascending; fp32, dense attention, the right answers given token by token`,
  },
};

async function main(): Promise<void> {
  const { values } = parseArgs({ options: FLAGS });
  if (values.help) {
    print(USAGE);
    return;
  }
  if (values.method !== 'loss' && values.method !== 'mass') throw new RangeError(`--method: '${values.method}' is neither loss nor mass`);
  const method = METHODS[values.method];
  const lengths = (values.lengths ?? method.lengths).split(',').map((text) => count('--lengths', text, LEAST_LENGTH));
  const documents = count('--documents', values.documents ?? method.documents, 1);
  const evaluations = count('--evaluations', values.evaluations, 4);
  const book = readFileSync(new URL('../loadtest/texts/pride-and-prejudice.txt', import.meta.url), 'utf8');
  const measured = await measureHeads({
    model: values.model, book, lengths, documents, reach: REACH, onProgress: print,
    maxEvaluations: values.method === 'mass' ? 0 : evaluations, threads: count('--threads', values.threads, 0),
  });
  const file = describeHeads(measured, {
    method: method.words,
    data: `${documents} documents of each length, in turn with 16 keys and their numbers, a chain of variables, one number and a passage to repeat, in Pride and Prejudice`,
  });
  const places = values.out === undefined ? headFilePlaces(values.model) : [values.out];
  print(`wrote ${await writeHeadFile(formatHeadFile(file), places)}`);
  file.order.forEach((head, i) => { print(`layer ${head[0]} head ${head[1]}: ${figuresOf(file, i)}`); });
}

function figuresOf({ mass, harm }: HeadFile, i: number): string {
  const massOf = `mass ${mass[i]!.toFixed(4)}`;
  return harm === undefined ? massOf : `${massOf}, harm with all above ${harm[i]?.toFixed(4) ?? 'not measured'}`;
}

function count(flag: string, text: string, min: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min) throw new RangeError(`${flag}: '${text}' is not an integer of at least ${min}`);
  return value;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
