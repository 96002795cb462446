"""Check the prose of the project: docstrings, comments, messages, test names and Markdown.

The rules: no word of the project's former private language (``WORDS``), no docstring that begins
with "What", and an imperative first line for functions (ruff's D401). ``prose_limits.txt`` holds
the number of findings that are left in each package; it may only shrink.

Usage::

    python -m tests.prose                    # check against the limits; exit status 1 if a package is above
    python -m tests.prose proxy/relay        # list the findings of a package, file or folder
    python -m tests.prose --update           # write the current counts; refused if their sum grew

A line that ends in ``prose: ignore`` is not checked.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
LIMITS: Final = ROOT / "tests" / "prose_limits.txt"
FOLDERS: Final = ("proxy", "loadgen", "tests", "examples")
IGNORE: Final = "prose: ignore"
# A string with fewer spaces is a name, a format or a header, not a message.
MESSAGE_SPACES: Final = 2

# Words to avoid, as a regular expression, and the words to use instead.
WORDS: Final = {
    r"bears?|bore|borne|bearing": "tolerate, allow",
    r"tells?|told|telling": "report, notify, receive, distinguish",
    r"deals?|dealt|dealing": "distribute, allocate",
    r"dear|dearer|dearest": "expensive",
    r"ripe|ripens?": "ready",
    r"whole(?! numbers?)": "complete, non-streamed, entire",
    r"sa(?:id|ys?|ying)": "report, state, show",
    r"stands|stood": "is, appears",
    r"(?:is|are|was|were) there(?= *[.,;:)]| *$)": "exists, is present",
    r"knows|knew": "has, contains, supports",
    r"wants?|wanted": "needs, requires",
    r"asks?|asked|asking": "request, query, poll",
    r"hears?|heard": "receive",
    r"speaks?|spoken": "support, use",
    r"all the same": "nevertheless",
    r"crumbs?": "residue",
    r"(?:in|of) heaps": "in batches",
    r"riders?": "owner, stream",
    r"habits?": "profile",
    r"alarms?": "timer, alert",
    r"(?:fast )?lanes?": "fast path",
}
PATTERN: Final = re.compile(r"\b(?:" + "|".join(f"({word})" for word in WORDS) + r")\b", re.IGNORECASE)
ADVICE: Final = tuple(WORDS.values())
COMMENT: Final = re.compile(r"(?:^|\s)#+ +(?!noqa|type: |pragma)(.*)$")
TEST: Final = re.compile(r"\s*(?:async )?def (test_\w+)")


class Finding(NamedTuple):
    """One place to reword: path from the root, line number from 1, and the reason."""

    path: str
    line: int
    reason: str


def words(text: str) -> Iterator[str]:
    """Yield a reason for each word to avoid; code in backquotes and quoted words are not prose."""
    for match in PATTERN.finditer(re.sub(r"``?[^`]*`?`", "", text)):
        yield f'"{match[0]}": {ADVICE[(match.lastindex or 1) - 1]}'


class Text(NamedTuple):
    """A string literal of a module and its place, which ends before column ``end`` of the line ``last``."""

    value: str
    first: int
    start: int
    last: int
    end: int
    docstring: bool


def strings(tree: ast.Module) -> Iterator[Text]:
    """Yield the string literals of a module, and whether each is a docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(tree):  # parents come before their children
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            last, end = node.end_lineno or node.lineno, node.end_col_offset or 0
            yield Text(node.value, node.lineno, node.col_offset, last, end, id(node) in docstrings)


def check_python(path: str, source: str) -> Iterator[Finding]:
    """Yield the findings of one module: docstrings, comments, messages, names of tests.

    Strings other than docstrings are messages if they hold several words; in tests they are data.
    """
    inside: dict[int, list[tuple[int, int]]] = {}
    for text in strings(ast.parse(source)):
        for number in range(text.first, text.last + 1):
            start = text.start if number == text.first else 0
            inside.setdefault(number, []).append((start, text.end if number == text.last else sys.maxsize))
        if text.docstring and text.value.lstrip().startswith("What"):
            yield Finding(path, text.first, 'a docstring begins with "What"')
        if text.docstring or (text.value.count(" ") >= MESSAGE_SPACES and not path.startswith("tests/")):
            for number, line in enumerate(text.value.split("\n"), text.first):
                yield from (Finding(path, number, why) for why in words(line))
    for number, line in enumerate(source.splitlines(), 1):
        if test := TEST.match(line):
            yield from (Finding(path, number, why) for why in words(test[1].replace("_", " ")))
        comment = COMMENT.search(line) if "#" in line else None
        if comment and not any(start <= comment.start(1) < end for start, end in inside.get(number, ())):
            if comment[1].startswith("What ") and "?" not in comment[1]:
                yield Finding(path, number, 'a comment begins with "What"')
            yield from (Finding(path, number, why) for why in words(comment[1]))


def check_markdown(path: str, source: str) -> Iterator[Finding]:
    """Yield the findings of a page; fenced blocks and addresses of links are not prose."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield from (Finding(path, number, why) for why in words(re.sub(r"\]\([^)]*\)", "]", line)))


def check_moods() -> Iterator[Finding]:
    """Yield the functions whose docstring begins with a verb that is not imperative (ruff's D401)."""
    command = (
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "D401",
        "--output-format",
        "json",
    )
    folders = [name for name in FOLDERS if (ROOT / name).exists()]
    done = subprocess.run((*command, *folders), cwd=ROOT, capture_output=True, check=False)
    for found in json.loads(done.stdout):
        path = Path(found["filename"]).relative_to(ROOT).as_posix()
        yield Finding(path, found["location"]["row"], "docstring is not imperative")


def findings() -> list[Finding]:
    """Return all findings of the project, in the order of files and lines."""
    found = list(check_moods())
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT).as_posix()
            if path != "tests/prose.py":
                found += check_python(path, file.read_text())
    pages = (page for folder in ("docs", "deploy", "examples") for page in (ROOT / folder).rglob("*.md"))
    for file in (*ROOT.glob("*.md"), *pages):
        found += check_markdown(file.relative_to(ROOT).as_posix(), file.read_text())
    texts: dict[str, list[str]] = {}
    return sorted(one for one in found if IGNORE not in _line(texts, one))


def _line(texts: dict[str, list[str]], one: Finding) -> str:
    if one.path not in texts:
        texts[one.path] = (ROOT / one.path).read_text().splitlines()
    lines = texts[one.path]
    return lines[one.line - 1] if one.line <= len(lines) else ""


def package(path: str) -> str:
    """Return the name that limits use for the package of a file: ``proxy/relay``, ``loadgen``, ``docs``."""
    parts = path.split("/")
    if path.endswith(".md"):
        return "docs"
    return "/".join(parts[:2]) if parts[0] == "proxy" and len(parts) > 2 else parts[0]


def read_limits(text: str) -> dict[str, int]:
    """Return the limit of each package. Where a merge left two lines of one package the higher one counts."""
    limits: dict[str, int] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, count = line.rpartition(" ")
            limits[name] = max(int(count), limits.get(name, 0))
    return limits


def main(arguments: Iterable[str]) -> int:
    """Run the command line of this module; return its exit status."""
    found = findings()
    counts = Counter(package(one.path) for one in found)
    limits = read_limits(LIMITS.read_text()) if LIMITS.exists() else {}
    match list(arguments):
        case []:
            return _check(counts, limits)
        case ["--update"]:
            return _update(counts, limits)
        case folders:
            chosen = [
                one for one in found if one.path.startswith(tuple(folders)) or package(one.path) in folders
            ]
            sys.stdout.writelines(f"{one.path}:{one.line}: {one.reason}\n" for one in chosen)
            return int(bool(chosen))


def _check(counts: Counter[str], limits: dict[str, int]) -> int:
    above = sorted(name for name in counts if counts[name] > limits.get(name, 0))
    for name in above:
        sys.stdout.write(
            f"prose: {name} has {counts[name]} findings, the limit is {limits.get(name, 0)}; "
            f"list them with: python -m tests.prose {name}\n"
        )
    if above:
        sys.stdout.write("prose: if files moved between packages, run: python -m tests.prose --update\n")
    elif any(counts[name] < limit for name, limit in limits.items()):
        sys.stdout.write("prose: fewer findings than the limits; lower them with: make format\n")
    return int(bool(above))


def _update(counts: Counter[str], limits: dict[str, int]) -> int:
    before = sum(limits.values())
    if limits and counts.total() > before:
        sys.stdout.write(
            f"prose: {counts.total()} findings, more than the {before} of {LIMITS.name}; not updated\n"
        )
        return 1
    head = "# Findings of `python -m tests.prose` left in each package. `make format` lowers them.\n"
    LIMITS.write_text(head + "".join(f"{name} {counts[name]}\n" for name in sorted(counts)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
