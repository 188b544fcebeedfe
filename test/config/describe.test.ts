/** The documents made of the options table: complete, and equal to the files in docs/. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { configDocument, helpText } from '../../config/describe.ts';
import { flagName, optionNames, variableName } from '../../config/options.ts';

it('docs/config.md is what the table says (npm run docs)', () => {
  expect(readFileSync(new URL('../../docs/config.md', import.meta.url), 'utf8')).toBe(configDocument());
});

it('--help names every option', () => {
  const help = helpText();
  for (const name of optionNames) expect(help).toMatch(new RegExp(`--(no-)?${flagName(name)}\\b`));
});

it('docs/config.md names every variable, and no variable for --help and --version', () => {
  const document = configDocument();
  for (const name of optionNames) {
    if (name === 'help' || name === 'version') expect(document).not.toContain(`\`${variableName(name)}\``);
    else expect(document).toContain(`\`${variableName(name)}\``);
  }
});
