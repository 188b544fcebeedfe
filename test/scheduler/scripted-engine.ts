/**
 * An engine whose text is written beforehand, whatever it reads, and whose passes take time as passes of the CPU engine over
 * a long text do: what drafting is worth can be counted, on texts of any kind, without a model. Called by tests of drafting.
 */
import { FakeEngine } from '../../engine/fake/fake-engine.ts';
import type { Chunk, Engine } from '../../engine/engine.ts';
import type { Clock } from './build.ts';

export interface PassTimes {
  /** Of a chunk of one token that reads the whole text, and of each token more. */
  readonly plain: number;
  readonly perToken: number;
  /** Of a chunk whose pages are picked: TriForce's middle level. */
  readonly picked: number;
  /** Of a token in prefill. */
  readonly prefill: number;
}

/** Dense decoding of 64K on two cores, in ms (docs/log.md, 2026-11-27). */
export const LONG_TEXT: PassTimes = { plain: 16, perToken: 1.9, picked: 2.2, prefill: 0.1 };

/** `script`: a prompt and the text that follows it. Where the text of a chunk is another, nonsense follows. */
export function scriptedEngine(script: Int32Array, clock: Clock, { times = LONG_TEXT, pages = 1024, vocab = 1000 }: { times?: PassTimes; pages?: number; vocab?: number } = {}): Engine {
  const inner = new FakeEngine({ vocab, pages });
  const next = (position: number): number => script[position + 1] ?? 0;
  return {
    spec: inner.spec,
    pages: inner.pages,
    pageIds: inner.pageIds,
    release: (page, heads) => { inner.release(page, heads); },
    truncate: (sequence, length) => { inner.truncate(sequence, length); },
    forget: () => { inner.forget(); },
    close: () => inner.close(),
    async run(step) {
      clock.ms += step.reduce((sum, chunk) => sum + msOf(chunk, times), 0);
      const { pagesRead, pagesScored } = await inner.run(step);
      return { pagesRead, pagesScored, logits: step.map((chunk) => rows(chunk, next, vocab)) };
    },
  };
}

function msOf({ phase, tokens, attention }: Chunk, { plain, perToken, picked, prefill }: PassTimes): number {
  if (phase === 'prefill') return prefill * tokens.length;
  return (attention.classes[0]!.pick > 0 ? picked : plain) + perToken * (tokens.length - 1) * (attention.classes[0]!.pick > 0 ? picked / plain : 1);
}

function rows({ logits, tokens, start }: Chunk, next: (position: number) => number, vocab: number): Float32Array | null {
  if (logits === 'none') return null;
  const first = logits === 'all' ? 0 : tokens.length - 1;
  const all = new Float32Array((tokens.length - first) * vocab).fill(-50);
  for (let i = first; i < tokens.length; i++) all[(i - first) * vocab + next(start + i)] = 20;
  return all;
}
