import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { startTask } from '../../loadtest/load-process.ts';
import { answerJson, contentChunk, FINISH_CHUNK, ROLE_CHUNK, scriptedServer, sse, usageChunk, type Answer } from './scripted-server.ts';

const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

async function serverOf(chat: Answer, health: Answer = () => undefined): Promise<string> {
  const server = await scriptedServer({
    '/v1/models': (_, response) => { answerJson(response, { data: [{ id: 'tiny' }] }); },
    '/health': health,
    '/v1/chat/completions': chat,
  });
  closing.push(server.close);
  return server.baseUrl;
}

describe('startTask', () => {
  it('reads all streams and counts their tokens by usage', async () => {
    const baseUrl = await serverOf((body, response) => {
      response.end(sse(ROLE_CHUNK, contentChunk('several tokens'), FINISH_CHUNK, usageChunk(3, body['max_tokens'] as number), '[DONE]'));
    });
    const result = await startTask('streams', baseUrl, { count: 3, maxTokens: 7 }).result;
    expect(result).toMatchObject({ tokens: 21, errors: [] });
    expect(result.endMs).toBeGreaterThanOrEqual(result.startMs);
  });

  it('leaves every stream once all have shown text', async () => {
    let closed = 0;
    const baseUrl = await serverOf((_, response) => {
      response.on('close', () => closed++);
      response.write(sse(ROLE_CHUNK, contentChunk('a')));
    });
    const { leftMs, errors } = await startTask('leave', baseUrl, { count: 5 }).result;
    expect(errors).toEqual([]);
    expect(Math.abs(Date.now() - leftMs)).toBeLessThan(30_000);
    while (closed < 5) await sleep(5);
  });

  it('asks for health until it is stopped', async () => {
    let asked = 0;
    const baseUrl = await serverOf(() => undefined, (_, response) => { answerJson(response, {}, asked++ === 1 ? 503 : 200); });
    const health = startTask('health', baseUrl, { everyMs: 1 });
    while (asked < 3) await sleep(5);
    health.stop();
    const { latenciesMs, failures } = await health.result;
    expect(latenciesMs.length).toBe(asked);
    expect(failures).toBe(1);
  });

  it('says so when the task fails', async () => {
    await expect(startTask('streams', 'http://127.0.0.1:1', { count: 1, maxTokens: 1 }).result).rejects.toThrow("'streams' ended without a result");
  });
});
