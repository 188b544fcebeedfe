// Clients that write by hand and get it wrong: raw sockets against the whole server with the fake engine.
import { once } from 'node:events';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { realServer, type RealServer } from './real-server.ts';

async function serve(...flags: string[]): Promise<RealServer & { port: number }> {
  const server = await realServer('--engine', 'fake', ...flags);
  onTestFinished(() => server.close());
  await server.app.listen({ port: 0, host: '127.0.0.1' });
  return { ...server, port: (server.app.server.address() as AddressInfo).port };
}

function dial(port: number): Socket {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => { socket.destroy(); });
  return socket;
}

function post(json: string, length = Buffer.byteLength(json)): string {
  return `POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${json}`;
}

it('answers pipelined requests in their order', async () => {
  const { port } = await serve();
  const socket = dial(port);
  socket.write(post('{"prompt":"a","max_tokens":3}') + post('{"prompt":5}') + post('{"prompt":"a","max_tokens":3,"stream":true}') + 'GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n');
  let received = '';
  socket.on('data', (data: Buffer) => { received += data.toString(); });
  await expect.poll(() => [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['200', '400', '200', '404']);
  expect(received).toContain('data: [DONE]');
});

it('tells a client that writes its whole body before it reads that the body was too large', async () => {
  const { port } = await serve('--body-limit-bytes', '1048576');
  const socket = dial(port);
  const body = `{"prompt":"${'a'.repeat(32 * 1024 * 1024)}"}`;
  socket.pause();
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.write(post(body), () => { resolve(); });
  });
  socket.resume();
  const [data] = await once(socket, 'data') as [Buffer];
  expect(data.toString()).toMatch(/^HTTP\/1\.1 413 [^]*"code":"request_too_large"/);
});

it('forgets a client that leaves in the middle of its body', async () => {
  const { port, services } = await serve();
  const socket = dial(port);
  await once(socket, 'connect');
  socket.write(post('{"prompt":"a', 1000));
  await expect.poll(() => services.lifecycle.active).toBe(1);
  socket.destroy();
  await expect.poll(() => services.lifecycle.active).toBe(0);
});

it.each([
  ['{"prompt":"a","temperature":1e999}', "Invalid type for 'temperature': expected a decimal, but got a number out of range instead."],
  ['{"prompt":"a","max_tokens":1e999}', "Invalid type for 'max_tokens': expected an integer, but got a number out of range instead."],
])('says of %s what is wrong', async (payload, message) => {
  const { app } = await serve();
  const answer = await app.inject({ method: 'POST', url: '/v1/completions', headers: { 'content-type': 'application/json' }, payload });
  expect([answer.statusCode, answer.json()]).toMatchObject([400, { error: { message } }]);
});

it('takes null for long_context, as for every other parameter that may be left out', async () => {
  const server = await serve();
  expect(await server.post('/v1/completions', { prompt: 'a', max_tokens: 1, long_context: null })).toMatchObject({ metrics: { exactness: 'exact' } });
});

it('names a missed deadline in whole milliseconds', async () => {
  const { app } = await serve('--fake-step-ms', '20');
  const answer = await app.inject({ method: 'POST', url: '/v1/completions', payload: { prompt: 'a', max_tokens: 1000, ignore_eos: true, deadline_ms: 200 } });
  expect([answer.statusCode, answer.json()]).toMatchObject([504, { error: { code: 'deadline_exceeded', message: expect.stringMatching(/ the \d+ ms of its deadline/) as string } }]);
});

it.each([
  ['a method that there is not', 'BREW /coffee HTTP/1.1\r\nHost: x\r\n\r\n', 400, 'invalid_request'],
  ['no HTTP at all', '\u0016\u0003\u0001\u0002\u0000\u0001\r\n\r\n', 400, 'invalid_request'],
  ['two lengths', 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}', 400, 'invalid_request'],
  ['headers without end', `GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(100_000)}\r\n\r\n`, 431, 'headers_too_large'],
])('answers %s in the body of every other error, and closes', async (_, written, status, code) => {
  const { port } = await serve();
  const socket = dial(port);
  socket.write(written);
  let received = '';
  socket.on('data', (data: Buffer) => { received += data.toString(); });
  await once(socket, 'close');
  const [head, body] = received.split('\r\n\r\n');
  expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} [^]*x-request-id: req_`));
  expect(JSON.parse(body!)).toMatchObject({ error: { type: 'invalid_request_error', code, param: null } });
});
