/** Writes the generated documents. Run by `npm run docs`. */
import { writeFileSync } from 'node:fs';
import { configDocument } from '../config/describe.ts';
import { errorsDocument } from './describe-errors.ts';
import { packagePath } from './package.ts';

writeFileSync(packagePath('docs/config.md'), configDocument());
writeFileSync(packagePath('docs/errors.md'), errorsDocument());
