import { expect, test } from 'vitest';
import { Admission, type RefusalReason } from '../../server/admission.ts';
import { ApiError } from '../../server/errors.ts';
import type { EngineClient } from '../../server/generation.ts';

const idleGauges: EngineClient['gauges'] = {
  runningSequences: 0, waitingSequences: 0, prefillBacklogTokens: 0, prefillTokensPerSecond: 0, decodeStepMs: 0,
  pagesTotal: 100, pagesHeld: 0, pagesCached: 0, pagesFree: 100,
};

interface Situation {
  state?: EngineClient['state'];
  queued?: { requests: number; tokens: number };
  gauges?: Partial<EngineClient['gauges']>;
  maxQueuedRequests?: number;
  maxQueuedTokens?: number;
}

function admissionIn(situation: Situation) {
  const refused: RefusalReason[] = [];
  const admission = new Admission({
    engine: {
      state: situation.state ?? 'ready',
      queued: situation.queued ?? { requests: 0, tokens: 0 },
      gauges: { ...idleGauges, ...situation.gauges },
    },
    limits: { maxQueuedRequests: situation.maxQueuedRequests ?? 4, maxQueuedTokens: situation.maxQueuedTokens ?? 1000 },
    onRefused: (reason) => refused.push(reason),
  });
  return { admission, refused };
}

const demand = (tokens: number, deadlineMs: number | null = null) => ({ prompts: 1, tokens, deadlineMs });

function refusalOf(call: () => unknown): ApiError {
  try {
    call();
  } catch (error) {
    if (error instanceof ApiError) return error;
  }
  throw new Error('was not refused');
}

test('places that are held count before they reach the engine, and come back when released', () => {
  const { admission, refused } = admissionIn({ maxQueuedRequests: 2 });
  const first = admission.reserve(demand(10));
  admission.reserve(demand(10));
  expect(refusalOf(() => admission.reserve(demand(10)))).toMatchObject({ code: 'queue_full', status: 429 });
  first.release();
  first.release();
  admission.reserve(demand(10));
  expect(refusalOf(() => admission.reserve(demand(10))).code).toBe('queue_full');
  expect(refused).toEqual(['queue_full', 'queue_full']);
});

test('the token queue is bounded by estimates, and by true counts once they are known', () => {
  const { admission } = admissionIn({ queued: { requests: 1, tokens: 500 } });
  expect(refusalOf(() => admission.reserve(demand(501)))).toMatchObject({ code: 'token_queue_full', status: 429, type: 'tokens' });
  const place = admission.reserve(demand(500));
  expect(refusalOf(() => admission.reserve(demand(1))).code).toBe('token_queue_full');
  place.settle(400, null);
  admission.reserve(demand(100));
  expect(refusalOf(() => admission.reserve(demand(1))).code).toBe('token_queue_full');
});

test('a prompt longer than the token queue is let in when nothing waits', () => {
  const { admission } = admissionIn({});
  admission.reserve(demand(5000));
  expect(refusalOf(() => admission.reserve(demand(1))).code).toBe('token_queue_full');
});

test('Retry-After is the time that the backlog takes, within 1 to 600 s', () => {
  const retryAfter = (prefillBacklogTokens: number): number | null => {
    const gauges = { prefillBacklogTokens, prefillTokensPerSecond: 1000 };
    const { admission } = admissionIn({ gauges, queued: { requests: 4, tokens: 10 } });
    return refusalOf(() => admission.reserve(demand(1))).retryAfterMs;
  };
  expect(retryAfter(30_000)).toBe(30_000);
  expect(retryAfter(1)).toBe(1000);
  expect(retryAfter(1e9)).toBe(600_000);
});

test('a deadline that the backlog cannot meet is refused at once, one that it can is not', () => {
  const { admission, refused } = admissionIn({ gauges: { prefillBacklogTokens: 5000, prefillTokensPerSecond: 1000 } });
  expect(refusalOf(() => admission.reserve(demand(1, 4999)))).toMatchObject({ code: 'deadline_unreachable', status: 429 });
  const place = admission.reserve(demand(1, 6000));
  expect(refusalOf(() => { place.settle(2000, 6000); }).code).toBe('deadline_unreachable');
  place.release();
  admission.reserve(demand(1, 6000)).settle(900, 6000);
  expect(refused).toEqual(['deadline_unreachable', 'deadline_unreachable']);
});

test('no deadline is called unreachable before the engine has measured its speed', () => {
  const { admission } = admissionIn({ gauges: { prefillBacklogTokens: 1e9 } });
  admission.reserve(demand(100, 1)).settle(100, 1);
  expect(admission.backlogMs(0)).toBeNull();
});

test('an engine that is not ready is answered 503', () => {
  const { admission, refused } = admissionIn({ state: 'restarting' });
  expect(refusalOf(() => admission.reserve(demand(1)))).toMatchObject({ status: 503, code: 'engine_unavailable' });
  expect(refused).toEqual(['engine_unavailable']);
});
