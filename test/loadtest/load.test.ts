import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { arrivalTimesMs, Gate } from '../../loadtest/arrivals.ts';
import { Client } from '../../loadtest/client.ts';
import { planLoad, runLoad } from '../../loadtest/load.ts';
import { parseLoadOptions, type LoadOptions } from '../../loadtest/options.ts';
import { cutBook, parseMix, readBook } from '../../loadtest/prompts.ts';
import { seededRandom } from '../../loadtest/random.ts';
import { summarise } from '../../loadtest/report.ts';
import { answerJson, contentChunk, FINISH_CHUNK, ROLE_CHUNK, scriptedServer, sse, usageChunk, type ScriptedServer } from './scripted-server.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

function options(...argv: string[]): LoadOptions {
  return parseLoadOptions(['--seed', '7', ...argv])!;
}

describe('arrivals', () => {
  it('come at the wanted mean rate, ascending, and again with the same seed', () => {
    const times = arrivalTimesMs(20_000, 50, seededRandom(1));
    expect(times.at(-1)! / times.length).toBeGreaterThan(19);
    expect(times.at(-1)! / times.length).toBeLessThan(21);
    expect(times.every((at, i) => i === 0 || at >= times[i - 1]!)).toBe(true);
    expect(arrivalTimesMs(20_000, 50, seededRandom(1))).toEqual(times);
  });

  it('come all at once at rate inf', () => {
    expect(arrivalTimesMs(3, Infinity, seededRandom(1))).toEqual([0, 0, 0]);
  });

  it('never pass a gate beyond its limit, and all pass in the end', async () => {
    const gate = new Gate(3);
    let running = 0;
    let most = 0;
    const task = async (i: number): Promise<number> => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      if (i === 4) throw new Error('one fails');
      return i;
    };
    const done = await Promise.allSettled(Array.from({ length: 10 }, (_, i) => gate.run(() => task(i))));
    expect(most).toBe(3);
    expect(done.filter(({ status }) => status === 'fulfilled')).toHaveLength(9);
  });
});

describe('prompts', () => {
  it('are drawn by share, of about the wanted length, each with its own beginning', () => {
    const plan = planLoad(options('--num-prompts', '1000', '--mix', '100:3,400:1'), readBook(), 4);
    const short = plan.filter(({ classTokens }) => classTokens === 100);
    expect(short.length).toBeGreaterThan(700);
    expect(short.length).toBeLessThan(800);
    expect(plan.every(({ prompt, classTokens }) => prompt.length === classTokens * 4)).toBe(true);
    expect(new Set(plan.map(({ prompt }) => prompt.slice(0, 20))).size).toBe(1000);
  });

  it('are the same for the same seed only', () => {
    const book = readBook();
    expect(planLoad(options('--num-prompts', '3'), book, 4)).toEqual(planLoad(options('--num-prompts', '3'), book, 4));
    expect(planLoad(options('--num-prompts', '3'), book, 4)).not.toEqual(planLoad(options('--num-prompts', '3', '--seed', '8'), book, 4));
  });

  it('begin the book again at its end', () => {
    expect(cutBook('abc', 2, 8)).toBe('cabcabca');
  });

  it('refuse a mix that is not one', () => {
    expect(parseMix('16:1,8:3')).toEqual([{ tokens: 8, share: 0.75 }, { tokens: 16, share: 0.25 }]);
    expect(() => parseMix('many:1')).toThrow('--mix');
    expect(() => parseMix('512:0')).toThrow('--mix');
  });
});

describe('options', () => {
  it('refuse what makes no sense, naming the flag', () => {
    expect(() => options('--num-prompts', '1.5')).toThrow('--num-prompts');
    expect(() => options('--request-rate', '0')).toThrow('--request-rate');
    expect(() => options('--cancel-rate', '2')).toThrow('--cancel-rate');
    expect(() => options('--goodput', 'itl:5')).toThrow('itl');
  });
});

/** A piece of text every millisecond. */
async function tellStory(response: ServerResponse, promptTokens: number, tokens: number): Promise<void> {
  response.write(sse(ROLE_CHUNK));
  for (let i = 0; i < tokens && !response.destroyed; i++) {
    response.write(sse(contentChunk('x')));
    await sleep(1);
  }
  response.end(sse(FINISH_CHUNK, usageChunk(promptTokens, tokens), '[DONE]'));
}

describe('runLoad', () => {
  async function fakeServer(): Promise<{ server: ScriptedServer; prompts: string[]; mostAtOnce: () => number }> {
    const prompts: string[] = [];
    let open = 0;
    let most = 0;
    const server = await scriptedServer({
      '/v1/models': (_, response) => { answerJson(response, { data: [{ id: 'tiny' }] }); },
      '/tokenize': (body, response) => { answerJson(response, { count: (body['prompt'] as string).length / 5 }); },
      '/v1/chat/completions': async (body, response) => {
        const { content } = (body['messages'] as { content: string }[])[0]!;
        prompts.push(content);
        most = Math.max(most, ++open);
        if (prompts.length === 3) answerJson(response, { error: { message: 'full' } }, 429);
        else await tellStory(response, content.length / 5, body['max_tokens'] as number);
        open--;
      },
    });
    closing.push(server.close);
    return { server, prompts, mostAtOnce: () => most };
  }

  it('sends every request once, scales prompts by the served tokenizer, and sorts refusals out', async () => {
    const { server, prompts, mostAtOnce } = await fakeServer();
    const client = new Client(server.baseUrl);
    closing.push(() => client.close());
    const { model, requests } = await runLoad(client, options('--num-prompts', '12', '--mix', '50:1', '--output-len', '4', '--max-concurrency', '2'));
    expect(model).toBe('tiny');
    expect(prompts).toHaveLength(12);
    expect(prompts[0]).toHaveLength(250);
    expect(mostAtOnce()).toBe(2);
    expect(summarise(requests, {})).toMatchObject({ requests: 12, completed: 11, refused429: 1, inputTokens: 550, outputTokens: 44 });
  });

  it('cancels every request in mid-generation at cancel rate 1', async () => {
    const { server } = await fakeServer();
    const client = new Client(server.baseUrl);
    closing.push(() => client.close());
    const { requests } = await runLoad(client, options('--num-prompts', '2', '--output-len', '500', '--cancel-rate', '1', '--mix', '50:1'));
    expect(summarise(requests, {})).toMatchObject({ cancelled: 2, completed: 0, failed: 0 });
    expect(requests.every(({ result }) => result.contentMs.length < 500)).toBe(true);
  });
});
