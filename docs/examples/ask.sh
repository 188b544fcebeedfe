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
  const introduction = "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.";
  const text = require("node:fs").readFileSync(file, "utf8").trimEnd();
  process.stdout.write(JSON.stringify({
    messages: [{ role: "user", content: `${introduction}\n\n${text}\n\n${question}` }],
    ...(attention && { long_context: { attention } }),
    temperature: 0, max_tokens: 64, stream: true,
  }));'

# Prints the text of each event; fails unless the stream comes to its end.
show='
  process.exitCode = 1;
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    if (line === "data: [DONE]") { console.log(); process.exitCode = 0; return; }
    const event = line.startsWith("data: ") ? JSON.parse(line.slice(6)) : line.startsWith("{") ? JSON.parse(line) : {};
    if (event.error) { console.error(event.error.message); process.exit(1); }
    process.stdout.write(event.choices?.[0]?.delta?.content ?? "");
  });'

node -e "$body" "$here/the-time-machine.txt" "$question" "$attention" |
  curl -sSN "$url/v1/chat/completions" -H 'content-type: application/json' --data-binary @- |
  node -e "$show"
