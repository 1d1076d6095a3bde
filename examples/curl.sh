#!/bin/sh
# The server's API with curl. Usage: sh examples/curl.sh [URL [KEY]], with `quire serve` running.
set -eu
url=${1:-http://127.0.0.1:8000}
key=${2:-none}

ask() {
  path=$1
  shift
  curl -sS --fail-with-body "$url$path" -H "Authorization: Bearer $key" "$@"
  echo
}
post() {
  path=$1 body=$2
  shift 2
  ask "$path" -H 'Content-Type: application/json' -d "$body" "$@"
}

ask /v1/models
post /v1/completions '{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}'
post /v1/chat/completions '{"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 32}'
# A stream: -N shows events as they come.
post /v1/chat/completions \
  '{"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "stream": true}' -N
# Our own id, which comes back and stands in the log.
post /v1/completions '{"prompt": "Once upon a time", "max_tokens": 8}' -i -H 'x-request-id: my-id-1'
post /tokenize '{"prompt": "How many tokens are these?"}'
