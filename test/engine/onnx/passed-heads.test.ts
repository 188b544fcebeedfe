// Streaming heads with rows of their own on the CPU engine.
import { describe } from 'vitest';
import { createOnnxEngine } from '../../../engine/onnx/onnx-engine.ts';
import { Weights } from '../../../engine/model/weights.ts';
import { passedHeadsCases } from '../passed-heads.cases.ts';

describe.each(['fp32', 'int8'] as const)('pages that streaming heads have passed, in %s', (precision) => {
  passedHeadsCases({
    async open({ dir, spec }, headOrder) {
      const weights = await Weights.open(dir, spec);
      try {
        return await createOnnxEngine({ spec, weights, precision, threads: 1, pages: 40, headOrder });
      } finally {
        weights.close();
      }
    },
    // Large keys.
    poison(engine, page, heads) {
      const { kvHeads } = engine.spec;
      for (const head of heads) engine.memory.keysOf(Math.floor(head / kvHeads), head % kvHeads, page).fill(120);
    },
  });
});
