// The reference engine against logits that Hugging Face transformers computed, prefilled in several ways.
import { ReferenceEngine } from '../../../engine/reference/reference-engine.ts';
import { fixtureCases } from '../fixtures.cases.ts';

fixtureCases((model, pages) => new ReferenceEngine({ ...model, pages, headOrder: null }), { logits: 2e-3, margin: 0.01 });
