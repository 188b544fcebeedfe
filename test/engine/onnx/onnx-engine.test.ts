// The ONNX engine: the cases of every engine, in both precisions.
import { createOnnxEngine, type OnnxEngine } from '../../../engine/onnx/onnx-engine.ts';
import type { OnnxPrecision } from '../../../engine/onnx/graph-interface.ts';
import { Weights } from '../../../engine/model/weights.ts';
import { engineCases } from '../engine.cases.ts';
import type { TinyModel } from '../../tiny-model.ts';

async function makeOnnx({ dir, spec }: TinyModel, pages: number, precision: OnnxPrecision): Promise<OnnxEngine> {
  const weights = await Weights.open(dir, spec);
  try {
    return await createOnnxEngine({ spec, weights, precision, threads: 1, pages, headOrder: null });
  } finally {
    weights.close();
  }
}

engineCases('onnx, fp32', (model, pages) => makeOnnx(model, pages, 'fp32'), { reference: 1e-5, picked: 1e-3, self: 1e-5 });
engineCases('onnx, int8', (model, pages) => makeOnnx(model, pages, 'int8'), { reference: 0.1, picked: 0.4, self: 0.08 });
