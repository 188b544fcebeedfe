// StreamingLLM through the scheduler: endless prompts and answers in constant memory, whatever the steps.
import { describe, expect, test } from 'vitest';
import type { Chunk, Engine } from '../../engine/engine.ts';
import type { AttentionSettings } from '../../kvcache/page-lists/page-list.ts';
import { Loop } from '../../scheduler/loop.ts';
import { bench, dense, metricsOf, prompt, request } from './build.ts';
import { ListEngine } from './list-engine.ts';

const streaming: AttentionSettings = { ...dense, attention: 'streaming', renumberPositions: true };

async function tokensWith(attention: AttentionSettings, promptTokens: number, stepTokens: number): Promise<number[]> {
  const busy = bench({ engine: new ListEngine(80), stepTokens });
  busy.submit(request(1, { promptIds: prompt(1, promptTokens).map((id) => id % 300), maxTokens: 300, attention }));
  await busy.finish();
  busy.loop.checkIntegrity();
  expect(metricsOf(busy, 1).generatedTokens).toBe(300);
  return busy.tokensOf(1);
}

describe('a streaming text', () => {
  test.each<[string, Partial<AttentionSettings>]>([
    ['sinks and window', {}],
    ['a window shorter than what comes at once', { localTokens: 64 }],
    ['no sinks', { sinkTokens: 0 }],
    ['positions of the text', { renumberPositions: false }],
  ])('does not depend on how much of it is computed at once: %s', async (_, changes) => {
    const settings = { ...streaming, ...changes };
    const small = await tokensWith(settings, 3000, 64);
    expect(await tokensWith(settings, 3000, 512)).toEqual(small);
    expect(await tokensWith(settings, 3000, 4096)).toEqual(small);
  });

  test('is the dense one while sinks and window hold all of it, and another one later', async () => {
    const wide = { ...streaming, localTokens: 1024 };
    expect(await tokensWith(wide, 700, 512)).toEqual(await tokensWith(dense, 700, 512));
    expect(await tokensWith(wide, 1500, 512)).not.toEqual(await tokensWith(dense, 1500, 512));
  });

  test('of 300,000 tokens holds the same pages and reads the same number of them all the way', async () => {
    const promptTokens = 200_000;
    const maxTokens = 100_000;
    const { engine, longest } = countingEngine();
    let numTokens = 0;
    let mostHeld = 0;
    const loop = new Loop({
      engine, now: () => 0,
      options: { maxModelLen: 0, maxSequences: 4, stepTokens: 512, targetGapMs: 100, prefixCache: true },
      send: (message) => {
        if (message.type !== 'step') return;
        for (const event of message.events) if (event.type === 'tokens') numTokens += event.tokens.length;
        mostHeld = Math.max(mostHeld, message.gauges.pagesHeld);
      },
    });
    loop.receive({ type: 'submit', request: request(1, { promptIds: new Int32Array(promptTokens), maxTokens, attention: streaming }) });
    while (!loop.isIdle) await loop.step();
    expect(numTokens).toBe(maxTokens);
    // A sink page, two of window, and two of the span that is being computed.
    expect(longest()).toBe(5);
    // In prefill also the rest of a step's 512 tokens.
    expect(mostHeld).toBeLessThanOrEqual(5 + 8);
    loop.checkIntegrity();
  });
});

/** Computes nothing; remembers the longest list. */
function countingEngine(): { engine: Engine; longest: () => number } {
  const vocab = 8;
  const row = new Float32Array(vocab);
  let longest = 0;
  const logitsOf = ({ attention, logits }: Chunk): Float32Array | null => {
    longest = Math.max(longest, ...attention.classes.map(({ fixed, candidates }) => fixed.length + candidates.length));
    return logits === 'none' ? null : row;
  };
  const engine: Engine = {
    spec: {
      engine: 'counting', precision: 'none', layers: 1, kvHeads: 1, vocab, contextLength: 4096, slidingWindow: [null],
      headOrder: null, keysDependOnPromptLength: false, kvBytesPerToken: 1,
    },
    pages: 40,
    pageIds: 40,
    release: () => undefined,
    run: (step) => Promise.resolve({ logits: step.map(logitsOf), pagesRead: 0, pagesScored: 0 }),
    truncate: () => undefined,
    forget: () => undefined,
    close: () => Promise.resolve(),
  };
  return { engine, longest: () => longest };
}
