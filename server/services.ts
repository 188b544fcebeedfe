/**
 * What the routes are given: every part of the server that a handler may use, built once by main.ts (or by a test)
 * and handed to buildApp. Holds no logic.
 */
import type { Config } from '../config/options.ts';
import type { RetrievalService } from '../retrieval/retrieval-service.ts';
import type { TextService } from '../tokenizer/text-service.ts';
import type { Admission } from './admission.ts';
import type { EngineClient } from './generation.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { Metrics } from './metrics.ts';
import type { ServedModel } from './served-model.ts';

export interface Services {
  readonly config: Config;
  readonly engine: EngineClient;
  readonly text: TextService;
  readonly retrieval: RetrievalService;
  readonly model: ServedModel;
  readonly metrics: Metrics;
  readonly admission: Admission;
  readonly lifecycle: Lifecycle;
}
