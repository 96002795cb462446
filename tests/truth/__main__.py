"""``python -m tests.truth``: prints the table, writes docs/accuracy.md; exit 1 when a target is missed."""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from proxy.truth.cases import CASES
from proxy.truth.deployments import DEPLOYMENTS
from tests.truth.harness import Row, measure, table, write
from tests.truth.plots import draw

POLICIES = ("overlap", "tokens", "steps")


def _measured(name: str) -> list[Row]:
    return [measure(name, policy) for policy in POLICIES]


def main() -> int:
    """Exit status."""
    rows: list[Row] = []
    with ProcessPoolExecutor() as pool:
        names = [*CASES, *DEPLOYMENTS]
        for found in pool.map(_measured, names):
            rows += found
            sys.stderr.write(f"{len(rows) // len(POLICIES)}/{len(names)} {found[0].case}\n")
    docs = Path(__file__).parents[2] / "docs"
    sys.stdout.write(table(rows) + "\n")
    draw(docs / "img" / "accuracy.svg", rows)
    write(docs / "accuracy.md", rows)
    return 0 if all(row.met for row in rows if row.policy == "steps") else 1


if __name__ == "__main__":
    sys.exit(main())
