"""``python -m tests.truth``: prints the table, writes docs/accuracy.md; exit 1 when a target is missed."""

import sys
from pathlib import Path

from tests.truth.harness import CASES, measure, table, write


def main() -> int:
    rows = [measure(name, policy) for name in CASES for policy in ("overlap", "tokens", "steps")]
    sys.stdout.write(table(rows) + "\n")
    write(Path(__file__).parents[2] / "docs" / "accuracy.md", rows)
    return 0 if all(row.met for row in rows if row.policy == "steps") else 1


sys.exit(main())
