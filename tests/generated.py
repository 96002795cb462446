"""Write the tables of the documentation that are made from registers in the code.

A table is between the lines ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->`` of a page in ``docs``.

Usage::

    python -m tests.generated            # check; exit status 1 if a table is not current
    python -m tests.generated --update   # write the tables anew; part of ``make format``
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from proxy.config.sources import AUTO, NONE, SOURCES
from proxy.exporters.metrics import all_metrics
from proxy.schema import Unknown

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; ``|`` within a cell is escaped."""
    cells = ([cell.replace("|", r"\|") for cell in row] for row in (head, *rows))
    first, *others = (re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(row)} |") for row in cells)
    return "\n".join((first, "|" + "---|" * len(head), *others))


def sources() -> str:
    """Return the table of energy sources."""
    rows = [
        (f"`{AUTO}`", "`nvml`, else nothing: records have `unknown` and the reason", "", "never a simulation")
    ]
    for kind in SOURCES.values():
        argument = f"[:{kind.argument}]" if kind.argument_optional else f":{kind.argument}"
        name = f"`{kind.name}{argument if kind.argument else ''}`"
        rows.append((name, kind.reads, kind.measures, kind.use))
    rows.append((f"`{NONE}`", "nothing: requests are served, no joules are reported", "", ""))
    return table(("source", "reads", "readings", "use"), rows)


def metrics() -> str:
    """Return the table of Prometheus metrics."""
    rows = []
    for metric in all_metrics():
        labels = ", ".join(metric.labels)
        rows.append(
            (f"`{metric.name}`", metric.type, labels, " ".join(filter(None, (metric.help, metric.note))))
        )
    return table(("metric", "type", "labels", "meaning"), rows)


def unknown() -> str:
    """Return the table of the reasons of unknown values."""
    return table(
        ("reason", "meaning", "what to do"), ((f"`{r.value}`", r.meaning, r.remedy) for r in Unknown)
    )


def errors() -> str:
    """Return the table of exception classes: name, base, module and the first sentence of the docstring."""
    rows = []
    for path in sorted(
        path for package in ("proxy", "loadgen") for path in (DOCS.parent / package).rglob("*.py")
    ):
        for node in ast.parse(path.read_text()).body:
            bases = (
                [base.id for base in node.bases if isinstance(base, ast.Name)]
                if isinstance(node, ast.ClassDef)
                else []
            )
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_") or not bases:
                continue
            if bases[0].endswith(("Error", "Exception")):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                sentence = re.split(r"[.;:](?: |$)", text)[0]
                module = path.relative_to(DOCS.parent).as_posix()
                rows.append((f"`{node.name}`", f"`{bases[0]}`", f"`{module}`", sentence))
    return table(("error", "is a", "module", "meaning"), rows)


TABLES: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "sources": ("sensors.md", sources),
    "metrics": ("telemetry.md", metrics),
    "unknown": ("telemetry.md", unknown),
    "errors": ("architecture.md", errors),
}
"""The page and the function of each table, by name."""


def current(page: str, name: str, content: str) -> str:
    """Return the page with the table written anew; raises ``ValueError`` if it has no place for it."""
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end of {name} -->"
    found, count = re.subn(
        re.escape(begin) + r".*?" + re.escape(end),
        lambda _: f"{begin}\n{content}\n\n{end}",
        page,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"the page has {count} places {begin.strip()} ... {end}, must be 1")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the command line of this module; return its exit status."""
    stale = []
    for name, (file, make) in TABLES.items():
        path = DOCS / file
        page = path.read_text()
        new = current(page, name, make())
        if new != page:
            stale.append(f"docs/{file}: the table {name} is not current; run: make format")
            if "--update" in arguments:
                path.write_text(new)
    if "--update" in arguments:
        return 0
    sys.stdout.writelines(f"{line}\n" for line in stale)
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
