/** A folder with a tiny embedding model: one random vector for each word, nothing more. The caller removes it. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Graph } from '../../engine/onnx/graph.ts';
import { SeededRandom } from '../seeded-random.ts';
import { modelFolder } from '../tokenizer/model-folder.ts';

export const WIDTH = 8;
export const WORDS = ['[UNK]', '[PAD]', 'apple', 'lantern', 'number', 'river', 'the', 'of', 'who', 'night'];

/** [words, WIDTH] */
export const vectors = (() => {
  const random = new SeededRandom(5);
  return Float32Array.from({ length: WORDS.length * WIDTH }, () => random.next() - 0.5);
})();

export async function embeddingFolder(): Promise<string> {
  const folder = await modelFolder({
    'tokenizer.json': {
      added_tokens: [], normalizer: { type: 'Lowercase' }, pre_tokenizer: { type: 'Whitespace' }, post_processor: null, decoder: null,
      model: { type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100, vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])) },
    },
  });
  const graph = new Graph();
  const ids = graph.input('input_ids', 'int64', ['batch', 'tokens']);
  graph.input('attention_mask', 'int64', ['batch', 'tokens']);
  const states = graph.op('Gather', [graph.constant('float32', [WORDS.length, WIDTH], vectors), ids]);
  graph.output('last_hidden_state', states, 'float32', ['batch', 'tokens', WIDTH]);
  await writeFile(join(folder, 'model.onnx'), graph.model());
  return folder;
}
