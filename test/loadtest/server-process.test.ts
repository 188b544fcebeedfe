import { request } from 'undici';
import { describe, expect, it } from 'vitest';
import { startServer } from '../../loadtest/server-process.ts';

describe('startServer', () => {
  it('gives a server that is ready, and takes it away again', async () => {
    const server = await startServer(['--engine', 'fake']);
    try {
      const response = await request(`${server.baseUrl}/ready`);
      await response.body.dump();
      expect(response.statusCode).toBe(200);
    } finally {
      await server.stop();
    }
    await expect(request(`${server.baseUrl}/ready`)).rejects.toThrow('ECONNREFUSED');
    await server.stop();
  });

  it('rejects with what the server said when it does not start', async () => {
    await expect(startServer(['--engine', 'steam'])).rejects.toThrow(/ended with \d+ before it was ready[^]*engine/);
  });
});
