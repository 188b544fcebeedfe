// The head file: an order of all KV heads, or a refusal.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readHeadOrder } from '../../../engine/model/head-file.ts';
import { ModelFileError } from '../../../engine/model/model-file-error.ts';
import { parseModelSpec } from '../../../engine/model/spec.ts';
import { useTemporaryFolders } from '../temporary-folder.ts';

const newFolder = useTemporaryFolders();
const spec = parseModelSpec({
  model_type: 'llama', hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
  vocab_size: 512, max_position_embeddings: 4096,
});
const order = [[1, 0], [0, 1], [1, 1], [0, 0]];

function folderWith(content: string): string {
  const dir = newFolder();
  writeFileSync(join(dir, 'heads.json'), content);
  return dir;
}

describe('a head file', () => {
  test('beside the model gives the order as layer * kvHeads + head', async () => {
    const dir = folderWith(JSON.stringify({ method: 'attention mass', order, scores: [0.1, 0.2, 0.3, 0.4] }));
    expect(await readHeadOrder(dir, '', spec)).toEqual(Int32Array.of(2, 1, 3, 0));
  });

  test('by its path', async () => {
    const dir = folderWith(JSON.stringify({ order }));
    expect(await readHeadOrder(newFolder(), join(dir, 'heads.json'), spec)).toEqual(Int32Array.of(2, 1, 3, 0));
  });

  test('may be absent beside the model, but not where a path was given', async () => {
    expect(await readHeadOrder(newFolder(), '', spec)).toBeNull();
    await expect(readHeadOrder(newFolder(), join(newFolder(), 'heads.json'), spec)).rejects.toThrow(/heads.json: does not exist/);
  });
});

test.each<[string, string, RegExp]>([
  ['not JSON', '{', /is not valid JSON/],
  ['a list', '[]', /order must list the model's 4 KV heads as \[layer, head\], got no list/],
  ['a short order', JSON.stringify({ order: order.slice(1) }), /got 3 entries/],
  ['a head twice', JSON.stringify({ order: [...order.slice(1), [0, 0]] }), /order must name each KV head once/],
  ['a head that the model lacks', JSON.stringify({ order: [[0, 2], ...order.slice(1)] }), /order has the entry \[0,2\]; entries are \[layer, head\] below \[2, 2\]/],
  ['a layer below zero', JSON.stringify({ order: [[-1, 0], ...order.slice(1)] }), /order has the entry \[-1,0\]/],
  ['plain numbers', JSON.stringify({ order: [0, 1, 2, 3] }), /order has the entry 0/],
])('a head file with %s is refused', async (_, content, message) => {
  const dir = folderWith(content);
  await expect(readHeadOrder(dir, '', spec)).rejects.toThrow(ModelFileError);
  await expect(readHeadOrder(dir, '', spec)).rejects.toThrow(message);
});
