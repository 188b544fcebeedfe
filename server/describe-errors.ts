/** The errors table in words: docs/errors.md. Called by write-docs.ts; a test holds the file equal to what this makes. */
import { errorTable } from './errors.ts';

export function errorsDocument(): string {
  const rows = Object.entries(errorTable).map(([code, { status, type, sentence, retry }]) =>
    `| \`${code}\` | ${status} | \`${type}\` | ${retry ? 'yes' : 'no'} | ${sentence.replaceAll('|', '\\|')} |`);
  return `${head}\n${rows.join('\n')}\n`;
}

const head = `# Errors

Generated from \`server/errors.ts\` by \`npm run docs\`; do not edit.

Every error has OpenAI's body, and every response the header \`x-request-id\` (the client's own, if it sent a sane one):

\`\`\`json
{"error": {"message": "Missing required parameter: 'messages'.", "type": "invalid_request_error", "param": "messages", "code": "missing_required_parameter"}}
\`\`\`

Where a repetition of the same request cannot help, the response says \`x-should-retry: false\`, which the official
clients heed. Status 429 and 503 carry \`Retry-After\` (seconds) and \`retry-after-ms\`. An error after the first byte of a
stream is one frame \`data: {"error": ...}\` followed by \`data: [DONE]\`.

| code | status | type | retry | message |
|---|---|---|---|---|`;
