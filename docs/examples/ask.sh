#!/bin/sh
# Asks a running server about a long document and prints the answer as it arrives.
# Usage: ask.sh [QUESTION] [dense|streaming|lserve]     BASE_URL: where the server is
set -eu
here=$(cd "$(dirname "$0")" && pwd)
url=${BASE_URL:-http://127.0.0.1:8000}
question=${1:-What is the special magic number for silver-lantern mentioned in the provided text?}
attention=${2:-}

body='
  const [file, question, attention] = process.argv.slice(1);
  const text = require("node:fs").readFileSync(file, "utf8");
  process.stdout.write(JSON.stringify({
    messages: [{ role: "user", content: `Read the text below and answer the questions after it.\n\n${text}\n\n${question}` }],
    ...(attention && { long_context: { attention } }),
    temperature: 0, max_tokens: 64, stream: true,
  }));'

# One SSE event a line: prints the text of each, and any error.
show='
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    if (!line.startsWith("data: {")) { if (line.startsWith("{")) console.error(line); return; }
    const event = JSON.parse(line.slice(6));
    if (event.error) { console.error(event.error.message); process.exitCode = 1; }
    process.stdout.write(event.choices?.[0]?.delta?.content ?? "");
  }).on("close", () => console.log());'

node -e "$body" "$here/the-time-machine.txt" "$question" "$attention" |
  curl -sSN "$url/v1/chat/completions" -H 'content-type: application/json' --data-binary @- |
  node -e "$show"
