/**
 * The options table in words: the text of --help and docs/config.md. Called by server/main.ts and by
 * server/write-docs.ts; a test holds docs/config.md equal to what this makes.
 */
import { type Option, type OptionName, allowed, flagName, groups, optionNames, options, variableName } from './options.ts';

type Group = (typeof groups)[number];

export function helpText(): string {
  const sections = groups.map((group) => `${group}\n${namesOf(group).map(helpLines).join('\n')}`);
  return [
    'Usage: longspan [options]',
    'Serves a language model over an OpenAI-compatible API. With no option it serves the bundled model.',
    ...sections,
    'Each option may also stand in the environment (--max-model-len is LONGSPAN_MAX_MODEL_LEN) or in the YAML file\n' +
      'that --config names. A flag wins over the environment, and the environment over the file.',
  ].join('\n\n') + '\n';
}

export function configDocument(): string {
  const sections = groups.map((group) => `## ${group}\n\n${tableHead}\n${namesOf(group).map(tableRow).join('\n')}`);
  return `${documentHead}\n\n${sections.join('\n\n')}\n`;
}

const documentHead = `# Configuration

Generated from \`config/options.ts\` by \`npm run docs\`; do not edit.

An option is taken from the first of these that has it: the command line (\`--max-model-len 32768\`), the
environment (\`LONGSPAN_MAX_MODEL_LEN=32768\`), the YAML file that \`--config FILE\` names (\`max-model-len: 32768\`),
the default. Switches are turned off by \`--no-NAME\`, \`NAME=false\` or \`name: false\`. An unknown option or a bad
value ends the start with one sentence and exit code 2.`;

const tableHead = '| flag | variable | value | default | |\n|---|---|---|---|---|';

function tableRow(name: OptionName): string {
  const option: Option = options[name];
  const variable = option.flagOnly ? '' : `\`${variableName(name)}\``;
  return `| \`--${flagName(name)}\` | ${variable} | ${allowed(option)} | ${shownDefault(option)} | ${option.sentence} |`;
}

function shownDefault(option: Option): string {
  const value = String(option.default);
  return value === '' ? '' : `\`${value}\``;
}

function helpLines(name: OptionName): string {
  const option: Option = options[name];
  const value = String(option.default);
  const facts = [allowed(option), ...(value === '' ? [] : [`default ${value}`]), ...(option.secret ? ['better set in the environment'] : [])];
  return `  ${usage(name, option)}\n      ${option.sentence}${option.flagOnly ? '' : ` (${facts.join('; ')})`}`;
}

function usage(name: OptionName, option: Option): string {
  if (option.kind !== 'switch') return `--${flagName(name)} ${placeholder(option)}`;
  return option.default ? `--no-${flagName(name)}` : `--${flagName(name)}`;
}

function placeholder(option: Option): string {
  if (option.kind === 'integer' || option.kind === 'number') return 'N';
  return option.kind === 'choice' ? option.values.join('|') : 'TEXT';
}

function namesOf(group: Group): OptionName[] {
  return optionNames.filter((name) => options[name].group === group);
}
