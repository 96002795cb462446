"""Exceptions of libraries are handled where the library is called, as docs/architecture.md states."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]

# Modules that may catch exceptions of a library, which they translate or treat as a missing value.
BOUNDARIES: Final[dict[str, frozenset[str]]] = {
    "pynvml": frozenset(
        {
            "proxy/energy/sources/nvml.py",
            "proxy/energy/sources/nvml_calls.py",
            "proxy/gpu/__main__.py",
            "proxy/gpu/nvml_facts.py",
            "loadgen/energy/nvml.py",
        }
    ),
    "httpx": frozenset(
        {
            "proxy/energy/sources/agent.py",
            "proxy/energy/sources/prometheus.py",
            "proxy/evidence/watch.py",
        }
    ),
    "httptools": frozenset(
        {"proxy/relay/http/heads.py", "loadgen/client/http_client.py", "loadgen/selfcheck/truth_server.py"}
    ),
    "psutil": frozenset({"proxy/evidence/processes.py"}),
    "tomllib": frozenset({"proxy/simulator/profiles/profile.py", "proxy/simulator/engine/diffusion.py"}),
}


def caught(path: Path) -> Iterator[str]:
    """Yield the dotted names of the exceptions that a module catches or suppresses."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield from (ast.unparse(one) for one in ast.walk(node.type) if isinstance(one, ast.Attribute))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "contextlib.suppress":
            yield from (ast.unparse(one) for one in node.args)


@pytest.mark.parametrize("library", BOUNDARIES)
def test_exceptions_of_a_library_are_caught_at_its_boundary_only(library: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("proxy", "loadgen")
        for path in (ROOT / package).rglob("*.py")
        if any(name.startswith(f"{library}.") for name in caught(path))
    }
    assert found <= BOUNDARIES[library], "translate the error where the library is called"


def test_the_page_names_the_handler_of_each_error() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    drawn, table = section.split("<!-- generated: errors -->")
    for line in table.splitlines():
        if "`proxy/" in line and not any(part in line for part in ("/simulator/", "/truth/", "/gpu/")):
            name = line.split("`")[1]
            assert f"`{name}`" in drawn, f"add {name} to the table of boundaries"
