// When the loop says what a step did: at once, or, where a device works apart, while it works on the next step.
import { describe, expect, test } from 'vitest';
import { FakeEngine } from '../../engine/fake/fake-engine.ts';
import type { Engine } from '../../engine/engine.ts';
import { Loop } from '../../scheduler/loop.ts';
import type { FromEngine, SequenceEvent, ToEngine } from '../../scheduler/messages.ts';
import { drafting, prompt, request, timed } from './build.ts';

type Happening = 'run begins' | 'run ends' | 'report';
type Submit = ToEngine & { type: 'submit' };

/** Drives a loop to its end; what happened, in order. */
async function follow(requests: readonly Submit['request'][], { worksApart, failing = [] }: { worksApart: boolean; failing?: readonly number[] }) {
  const happened: Happening[] = [];
  const events: SequenceEvent[] = [];
  const inner = new FakeEngine({ vocab: 1000, pages: 64 });
  let runs = 0;
  const engine: Engine = {
    ...timed(inner, { ms: 0 }), worksApart,
    run: async (step) => {
      const run = runs++;
      happened.push('run begins');
      await new Promise(setImmediate);
      happened.push('run ends');
      if (failing.includes(run)) throw new Error('out of order');
      return inner.run(step);
    },
  };
  const loop = new Loop({
    engine, options: { maxModelLen: 100_000, maxSequences: 64, stepTokens: 64, targetGapMs: 100, prefixCache: true }, now: () => 0,
    send: (message: FromEngine) => {
      if (message.type !== 'step') return;
      happened.push('report');
      events.push(...message.events);
    },
  });
  for (const each of requests) loop.receive({ type: 'submit', request: each });
  while (!loop.isIdle) await loop.step();
  return { happened, events };
}

const requests = [request(1, { maxTokens: 4 }), request(2, { promptIds: prompt(2, 150), maxTokens: 6 }), request(3, { maxTokens: 1 })];

describe('what a step did is told', () => {
  test('after it, where the host is the device', async () => {
    const { happened } = await follow([request(1, { maxTokens: 2 })], { worksApart: false });
    expect(happened).toEqual(['run begins', 'run ends', 'report', 'run begins', 'run ends', 'report']);
  });

  test('while the next one runs, where a device works apart, and at once after the last', async () => {
    const { happened } = await follow([request(1, { maxTokens: 3 })], { worksApart: true });
    expect(happened).toEqual(['run begins', 'run ends', 'run begins', 'report', 'run ends', 'run begins', 'report', 'run ends', 'report']);
  });

  test('in the same order of events either way', async () => {
    const [apart, together] = [await follow(requests, { worksApart: true }), await follow(requests, { worksApart: false })];
    const kinds = ({ events }: { events: readonly SequenceEvent[] }) => events.map(({ type, id, ...rest }) => [type, id, 'tokens' in rest ? rest.tokens : null]);
    expect(kinds(apart)).toEqual(kinds(together));
  });

  test('before a draft is made: nobody waits for it', async () => {
    // A drafter whose tokens take passes; n-grams are known before it comes to that.
    const { happened } = await follow([request(1, { promptIds: Int32Array.from({ length: 40 }, (_, i) => i % 4), maxTokens: 12, speculation: drafting({ speculation: 'triforce' }) })], { worksApart: true });
    expect(happened.slice(0, -1).join()).toContain('run ends,report,run begins');
  });

  test('also where the next step fails', async () => {
    const { happened, events } = await follow([request(1, { maxTokens: 5 })], { worksApart: true, failing: [1] });
    expect(happened).toEqual(['run begins', 'run ends', 'run begins', 'report', 'run ends', 'report']);
    expect(events.map(({ type }) => type)).toEqual(['started', 'tokens', 'failed']);
  });
});
