import { rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplateError } from '../../tokenizer/chat-template.ts';
import { openTextService, type TextService } from '../../tokenizer/text-service.ts';
import { WorkerPool } from '../../tokenizer/worker-pool.ts';
import { modelFolder } from './model-folder.ts';
import { byteLevelJson } from './synthetic.ts';

const BUNDLED = fileURLToPath(new URL('../../models/longspan-16m', import.meta.url));
const SENTENCE = 'The quick brown fox jumps over the lazy dog; 日本語 too. ';

describe('the text service', () => {
  let inline: TextService;
  let threaded: TextService;
  const seen: [number, number][] = [];
  beforeAll(async () => {
    inline = await openTextService(BUNDLED, { maxThreads: 1, maxInlineBytes: Infinity });
    threaded = await openTextService(BUNDLED, { maxThreads: 2, maxInlineBytes: 0, onEncode: (seconds, bytes) => seen.push([seconds, bytes]) });
  });
  afterAll(() => Promise.all([inline.close(), threaded.close()]));

  test('gives the same ids from a thread as on the spot', async () => {
    const text = SENTENCE.repeat(3000);
    expect(await threaded.encodePrompt(text, { addSpecial: true })).toEqual(await inline.encodePrompt(text, { addSpecial: true }));
    const messages = [{ role: 'user', content: `${text}<|im_end|>` }];
    expect(await threaded.encodeChat(messages, {})).toEqual(await inline.encodeChat(messages, {}));
  });

  test('encodes several long texts at once', async () => {
    const texts = ['a', 'b', 'c', 'd'].map((letter) => `${letter} ${SENTENCE}`.repeat(500));
    const ids = await Promise.all(texts.map((text) => threaded.encodePrompt(text, { addSpecial: false })));
    expect(ids.map((each) => threaded.tokenizer.decode(each, { skipSpecial: false }))).toEqual(texts);
  });

  test('refuses a chat from a thread with the same error as on the spot', async () => {
    const messages = [{ role: 'no role', content: SENTENCE }];
    await expect(threaded.encodeChat(messages, {})).rejects.toThrow(ChatTemplateError);
    await expect(inline.encodeChat(messages, {})).rejects.toThrow(/"no role" is not a role/);
  });

  test('reports time and bytes of every text', async () => {
    seen.length = 0;
    await threaded.encodePrompt('日本語', { addSpecial: true });
    await threaded.encodeChat([{ role: 'user', content: [{ type: 'text', text: 'é' }] }], {});
    expect(seen.map(([, bytes]) => bytes)).toEqual([9, 'user'.length + 'text'.length + 2]);
    expect(seen.every(([seconds]) => seconds > 0)).toBe(true);
  });

  test('leaves the event loop to others while a thread encodes', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await threaded.encodePrompt(SENTENCE.repeat(40_000), { addSpecial: true });
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
  });
});

test('closing rejects what is being encoded', async () => {
  const service = await openTextService(BUNDLED, { maxThreads: 1, maxInlineBytes: 0 });
  const refused = expect(service.encodePrompt(SENTENCE.repeat(10_000), { addSpecial: true })).rejects.toThrow();
  await service.close();
  await refused;
});

test('a chat for a model without a template is refused, a prompt is not', async () => {
  const dir = await modelFolder({ 'tokenizer.json': byteLevelJson('GPT-2') });
  const service = await openTextService(dir, { maxThreads: 1 });
  await expect(service.encodeChat([{ role: 'user', content: 'x' }], {})).rejects.toThrow(/no chat template/);
  expect(await service.encodePrompt('ab', { addSpecial: true })).toHaveLength(2);
  await service.close();
  await rm(dir, { recursive: true });
});

describe('the worker pool', () => {
  const open = () => new WorkerPool<string, string>({ file: new URL('./fragile-worker.ts', import.meta.url), name: 'run', maxThreads: 1, data: null });

  test('runs TypeScript in a thread', async () => {
    const pool = open();
    expect(await pool.run('hello')).toBe('hello (thread)');
    await pool.close();
  });

  test('a thread that dies takes its own task with it and no other', async () => {
    const pool = open();
    const fates = await Promise.allSettled(['first', 'die', 'second', 'throw', 'third'].map((task) => pool.run(task)));
    expect(fates.map((fate) => fate.status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled']);
    expect(await pool.run('later')).toContain('later');
    await pool.close();
  });
});
