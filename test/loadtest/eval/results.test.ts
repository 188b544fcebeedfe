import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parseEvalOptions, promptTokensOf } from '../../../loadtest/eval/options.ts';
import { markdown, meanOf, tablesOf, withTables } from '../../../loadtest/eval/report.ts';
import { keyOf, Results, type PerplexityRecord, type TaskRecord } from '../../../loadtest/eval/results.ts';
import { DEFAULT_ROWS, prefillSeconds, settingsOf, titleOf } from '../../../loadtest/eval/rows.ts';
import { readTexts, stretchOf } from '../../../loadtest/eval/texts.ts';

const folder = mkdtempSync(join(tmpdir(), 'longspan-eval-'));
afterAll(() => { rmSync(folder, { recursive: true }); });

const place = { model: 'm', precision: 'int8', row: 'dense', tokens: 4096, seed: 0 };
const record = (over: Partial<TaskRecord>): TaskRecord => ({ ...place, task: 'needle', question: 0, mode: 'answer', found: 1, of: 1, ...over });
const perplexity = (over: Partial<PerplexityRecord>): PerplexityRecord => ({ ...place, task: 'perplexity', nll: 200, of: 100, ...over });

describe('Results', () => {
  it('go on where their file ends, without a line that was cut off', () => {
    const file = join(folder, 'results.jsonl');
    const first = new Results(file);
    first.add(record({}));
    first.add(perplexity({}));
    appendFileSync(file, '{"model":"m","prec');
    const again = new Results(file);
    expect(again.all).toEqual([record({}), perplexity({})]);
    expect(again.has(keyOf(record({ found: 0 })))).toBe(true);
    for (const over of [{ seed: 1 }, { row: 'streaming' }, { tokens: 8192 }, { mode: 'inside' }, { question: 1 }, { task: 'multi-key' }, { precision: 'fp32' }] as const) {
      expect(again.has(keyOf(record(over)))).toBe(false);
    }
    again.add(record({ seed: 1 }));
    expect(readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => (JSON.parse(line) as TaskRecord).seed)).toEqual([0, 0, 1]);
  });
});

describe('tables', () => {
  const records = [
    record({ of: 4, found: 4 }), record({ task: 'multi-key', found: 1 }), record({ task: 'multi-key', seed: 1, found: 0 }),
    record({ row: 'lserve-512', of: 4, found: 2 }), record({ row: 'lserve-512', task: 'multi-key', found: 1 }),
    record({ row: 'lserve-512', mode: 'inside', found: 0 }), perplexity({}), perplexity({ seed: 1, nll: 100, of: 50 }),
  ];

  it('count values, average over tasks, and compare with dense over the same questions', () => {
    const [answers, inside, texts] = tablesOf(records, ['dense', 'lserve-512']);
    expect(answers!.cells).toEqual([
      ['attention', 'needle', 'multi-key', 'average', 'to dense'],
      ['dense', '4/4', '1/2', '75.0', ''],
      ['lserve 512', '2/4', '1/1', '75.0', '-25.0'],
    ]);
    expect(inside!.cells.at(-1)).toEqual(['lserve 512', '0/1', '0.0', '-']);
    expect(texts!.cells).toEqual([['attention', '4K'], ['dense', `${Math.exp(2).toFixed(3)} (2)`]]);
    expect(meanOf([])).toBeNaN();
  });

  it('give an average without the task that small models cannot do beside that of all', () => {
    const counted = [record({ task: 'common-words', of: 10, found: 0 }), record({ row: 'lserve-512', task: 'common-words', of: 10, found: 5 })];
    const [answers] = tablesOf([...records, ...counted], ['dense', 'lserve-512']);
    expect(answers!.cells).toEqual([
      ['attention', 'needle', 'multi-key', 'common-words', 'average', 'to dense', 'without common-words', 'to dense'],
      ['dense', '4/4', '1/2', '0/10', '50.0', '', '75.0', ''],
      ['lserve 512', '2/4', '1/1', '5/10', '66.7', '+0.0', '75.0', '-25.0'],
    ]);
  });

  it('stand between the marks of a document, again and again', () => {
    const document = 'before\n<!-- tables of npm run eval: begin -->\nold\n<!-- tables of npm run eval: end -->\nafter\n';
    const tables = tablesOf(records, ['dense']);
    const written = withTables(document, tables);
    expect(written).toContain(markdown(tables));
    expect(written).not.toContain('old');
    expect(withTables(written, tables)).toBe(written);
    expect(() => withTables('no marks', tables)).toThrow('begin');
  });
});

describe('options', () => {
  it('give all rows, and lengths in K', () => {
    const options = parseEvalOptions(['--lengths', '4K,128K', '--model', 'x', '--head-file', 'h'])!;
    expect(options.rows).toHaveLength(22);
    expect(options.lengths.map((length) => [length, options.documentsAt(length)])).toEqual([[4096, 10], [131_072, 1]]);
    expect(options.serverFlags).toEqual(['--precision', 'int8', '--model', 'x', '--head-file', 'h', '--kv-tokens', String(2 * 131_072 + 16_384)]);
    expect(promptTokensOf(131_072, 131_072)).toBe(130_816);
  });

  it.each([['--rows', 'sparse'], ['--tasks', 'riddles'], ['--modes', 'aloud'], ['--lengths', 'long'], ['--documents', 'some']])('refuse %s %s', (flag, value) => {
    expect(() => parseEvalOptions([flag, value])).toThrow(RangeError);
  });
});

describe('rows', () => {
  it('say what they ask for', () => {
    expect(settingsOf('lserve-2048-50')).toEqual({ attention: 'lserve', token_budget: 2048, streaming_heads: 0.5, sink_tokens: 128, local_tokens: 1024 });
    expect(settingsOf('lserve-2048-50-4096')).toEqual({ ...settingsOf('lserve-2048-50'), local_tokens: 4096 });
    expect(titleOf('lserve-2048-50-4096')).toBe('lserve 2048, 50 % streaming through 4096');
    expect(settingsOf('lserve-512')).toEqual({ attention: 'lserve', token_budget: 512 });
    expect(settingsOf('streaming')).toEqual(settingsOf('streaming-128-2048'));
    expect(settingsOf('streaming-0-1024')).toEqual({ attention: 'streaming', sink_tokens: 0, local_tokens: 1024 });
    expect(titleOf('streaming-0-1024')).toBe('streaming, 0 + 1024');
    expect(() => settingsOf('streaming-5')).toThrow(RangeError);
    expect(titleOf('lserve-2048-50')).toBe('lserve 2048, 50 % streaming');
    expect(new Set(DEFAULT_ROWS.map(titleOf)).size).toBe(DEFAULT_ROWS.length);
  });

  it('cost more with what they read', () => {
    expect(prefillSeconds('dense', 65_536)).toBeGreaterThan(5 * prefillSeconds('lserve-2048', 65_536));
    expect(prefillSeconds('lserve-2048', 65_536)).toBeGreaterThan(prefillSeconds('streaming', 65_536));
  });
});

describe('texts', () => {
  it('are lines of JSON, or one plain text', () => {
    const file = join(folder, 'texts.jsonl');
    appendFileSync(file, '{"text":"one"}\n{"text":"two"}\n');
    expect(readTexts(file)).toEqual(['one', 'two']);
    appendFileSync(file, '{"title":"three"}\n');
    expect(() => readTexts(file)).toThrow('line 3');
    expect(readTexts(null)[0]).toContain('universally acknowledged');
  });

  it('are cut in turn, and end', () => {
    const texts = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11]];
    expect(Array.from({ length: 6 }, (_, i) => stretchOf(texts, i, 2))).toEqual([[1, 2], [6, 7], [8, 9], [3, 4], [10, 11], null]);
  });
});
