"""Analysis of a ledger: ``python ledger.py LEDGER``, or cell by cell in an editor that supports ``# %%``.

A ledger (``jouleproxy --ledger FILE``) has one JSON record per line; docs/telemetry.md describes it.
"""

# %% Load the records. A value that is not known is null, and its reason is in "unknown".
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

path = Path(sys.argv[1] if len(sys.argv) > 1 else "ledger.jsonl")
records = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
known = [record for record in records if record["joules"] is not None]
print(f"{len(records)} records, {len(known)} with known energy")
for reason, count in Counter(record["unknown"] for record in records if record["unknown"]).items():
    print(f"  {count} have the reason {reason}")

# %% Energy and efficiency of each model. (The interval of a sum is not the sum of the intervals.)
joules: dict[str, float] = defaultdict(float)
tokens: dict[str, int] = defaultdict(int)
for record in known:
    joules[record["model"]] += record["joules"]
    tokens[record["model"]] += record["output_tokens"] or 0
for model, total in joules.items():
    per_token = f"{total / tokens[model]:.3f} J/token" if tokens[model] else "no tokens"
    print(f"{model}: {total:.1f} J, {tokens[model]} output tokens, {per_token}")

# %% The parts of the energy: what a step costs once (static), prompts, tokens, and the KV cache (context).
parts: dict[str, float] = defaultdict(float)
for record in known:
    for name, value in (record["parts"] or {}).items():
        parts[name] += value or 0.0
for name, value in sorted(parts.items(), key=lambda part: -part[1]):
    print(f"{name:12} {value:10.1f} J")

# %% The most expensive requests, with their 90 % intervals.
for record in sorted(known, key=lambda record: -record["joules"])[:5]:
    interval = f"{record['joules_low']} to {record['joules_high']}"
    print(f"{record['request_id']}: {record['joules']:.2f} J ({interval}), {record['output_tokens']} tokens")
