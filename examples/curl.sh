#!/usr/bin/env bash
# Energy of requests with curl. Arguments: the proxy's URL and the URL of its admin port.
set -euo pipefail
proxy=${1:-http://127.0.0.1:9000}
admin=${2:-http://127.0.0.1:9001}
id="example-$$"

model=$(curl -sS --fail "$proxy/v1/models" | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')
body='{"model": "'$model'", "max_tokens": 16, "messages": [{"role": "user", "content": "Where do the joules go?"}]'

echo "JSON response, held until its energy is measured (x-energy: wait); the last field is the energy:"
curl -sS --fail "$proxy/v1/chat/completions" -H 'content-type: application/json' \
    -H 'x-energy: wait' -H "x-request-id: $id" -d "$body}"
echo

echo "Stream: the energy is in the last usage chunk (a provisional value with x-energy: on):"
curl -sS --fail -N "$proxy/v1/chat/completions" -H 'content-type: application/json' \
    -H 'x-energy: on' -d "$body, \"stream\": true, \"stream_options\": {\"include_usage\": true}}" | tail -n 4

echo "The record of the first request; add -H 'Authorization: Bearer TOKEN' if the admin port has a token:"
curl -sS --fail "$admin/energy/requests/$id"
echo

echo "Sums by model:"
curl -sS --fail "$admin/energy/summary?by=model"
echo
