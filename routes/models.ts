/** GET /v1/models and /v1/models/:id: the one model that this server has. Ids may contain slashes. */
import type { FastifyInstance } from 'fastify';
import { apiError } from '../server/errors.ts';
import type { ServedModel } from '../server/served-model.ts';
import type { Services } from '../server/services.ts';

export function modelsRoutes(app: FastifyInstance, { model }: Services): void {
  app.get('/v1/models', { schema: { summary: 'List the models', tags: ['models'] } }, () => ({ object: 'list', data: [modelObject(model)] }));

  app.get<{ Params: { '*': string } }>('/v1/models/*', { schema: { summary: 'Describe a model', tags: ['models'] } }, ({ params }) => {
    const id = params['*'];
    if (id !== model.name) throw apiError('model_not_found', { model: id }, { param: 'model' });
    return modelObject(model);
  });
}

/** OpenAI's object, and vLLM's max_model_len; null until it is known. */
function modelObject({ name, created, contextLength }: ServedModel) {
  return {
    id: name,
    object: 'model',
    created,
    owned_by: 'longspan',
    root: name,
    parent: null,
    max_model_len: Number.isFinite(contextLength) ? contextLength : null,
  };
}
