"""Each module has a test file at the mirrored path, or ``covered_by.toml`` names the one that covers it."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grimp

ROOT: Final = Path(__file__).parents[1]
LIST: Final = ROOT / "tests" / "covered_by.toml"
PACKAGES: Final = ("proxy", "loadgen")
# Tests that start the installed commands, or a server beside them: they reach a module without importing it.
BY_PROCESS: Final = (
    "tests/e2e/",
    "tests/contract/",
    "tests/proxy/test_agent.py",
    "tests/proxy/gpu/test_main.py",
    "tests/engines/test_gpu.py",
)


MOST_LINES: Final = 450  # of a module


def test_no_module_is_too_long_to_be_read() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in modules()}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def modules() -> set[str]:
    """Paths of all modules relative to the root; ``__init__.py`` holds no code of its own."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"}


def mirror(module: str) -> str:
    """Return the path of a module's own test file."""
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def listed() -> dict[str, str]:
    """Return the test file of each module in ``covered_by.toml``."""
    return dict(_entries(tomllib.loads(LIST.read_text()), ""))


def _entries(table: dict[str, Any], folder: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _entries(value, f"{folder}{name}/")
        else:
            yield folder + name, value


def dotted(path: str) -> str:
    """Return the import name of a module at this path."""
    return path.removesuffix(".py").replace("/", ".")


def test_a_module_has_a_mirror_or_is_listed() -> None:
    without = {module for module in modules() if not (ROOT / mirror(module)).exists()}
    missing = sorted(without - listed().keys())
    assert not missing, f"write tests/PACKAGE/test_MODULE.py, or name the test in {LIST.name}"


def test_the_list_holds_no_module_that_is_gone_or_has_a_mirror() -> None:
    stale = sorted(m for m in listed() if m not in modules() or (ROOT / mirror(m)).exists())
    assert not stale, f"take these out of {LIST.name}"


def test_a_listed_test_reaches_its_module() -> None:
    graph = grimp.build_graph(*PACKAGES, "tests", cache_dir=None)
    for module, test in listed().items():
        assert (ROOT / test).exists(), f"{LIST.name} names {test} for {module}: no such file"
        if not test.startswith(BY_PROCESS):
            reached = graph.chain_exists(dotted(test), dotted(module))
            assert reached, f"{LIST.name}: {test} does not import {module}, not even by way of others"
