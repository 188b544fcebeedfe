/**
 * Which KV heads of a checkpoint can do with sinks and a window? `npm run calibrate -- --help`: measures it
 * without training and writes the head file that `--streaming-heads` needs.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { headFilePlaces } from '../engine/model/head-file.ts';
import { describeHeads, formatHeadFile, writeHeadFile } from './head-file.ts';
import { measureHeads } from './measure.ts';

const USAGE = `npm run calibrate -- [options]
  --model DIR        folder of the checkpoint                      the bundled model
  --out FILE         where to write      heads.json beside the model, or the cache folder if that cannot be written to
  --lengths L,L      prompt tokens                                 4000,8000,16000, as far as the model's context allows
  --documents N      prompts of each length                        4
  --threads N        0 chooses by the number of cores              0
Needs memory for the weights in float32 and for the KV memory of the longest prompt.`;

const FLAGS = {
  model: { type: 'string', default: fileURLToPath(new URL('../models/longspan-16m', import.meta.url)) },
  out: { type: 'string' },
  lengths: { type: 'string' },
  documents: { type: 'string', default: '4' },
  threads: { type: 'string', default: '0' },
  help: { type: 'boolean', default: false },
} as const;

/** What a streaming head is taken to read. */
const REACH = { sinkTokens: 128, windowTokens: 1024 };

async function main(): Promise<void> {
  const { values } = parseArgs({ options: FLAGS });
  if (values.help) {
    print(USAGE);
    return;
  }
  const lengths = values.lengths === undefined ? null : values.lengths.split(',').map((text) => count('--lengths', text, REACH.sinkTokens + REACH.windowTokens + 1));
  const documents = count('--documents', values.documents, 1);
  const book = readFileSync(new URL('../loadtest/texts/pride-and-prejudice.txt', import.meta.url), 'utf8');
  const measured = await measureHeads({
    model: values.model, book, lengths, documents, reach: REACH, threads: count('--threads', values.threads, 0), onProgress: print,
  });
  const file = describeHeads(measured, {
    method: `Attention mass outside the first ${REACH.sinkTokens} tokens and the last ${REACH.windowTokens}, mean over the queries that give the answer, ascending; fp32, dense attention, the right answer given token by token`,
    data: `${documents} needle prompts of each length (16 needles in Pride and Prejudice, one asked for)`,
  });
  const places = values.out === undefined ? headFilePlaces(values.model) : [values.out];
  print(`wrote ${await writeHeadFile(formatHeadFile(file), places)}`);
  file.order.forEach((head, i) => { print(`layer ${head[0]} head ${head[1]}: ${file.mass[i]!.toFixed(4)}`); });
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
