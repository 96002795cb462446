"""The compiled build does what the sources do: the tests of what is compiled pass on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiled import ROOT, compiled, variables, why_not

# Each group is a test process of its own, so that they can run beside each other.
TESTED = {
    "relay": ("tests/proxy/relay", "tests/proxy/api"),
    "contract": ("tests/contract", "tests/e2e/test_openai.py"),
    "loadgen": tuple(
        f"tests/loadgen/{folder}/test_{name}.py"
        for folder, name in (
            ("client", "chunk_template"),
            ("client", "http_client"),
            ("client", "responses"),
            ("client", "transport"),
            ("drive", "attack"),
            ("drive", "pacer"),
            ("workload", "request_bodies"),
        )
    ),
    "properties": tuple(f"tests/properties/test_hostile_{name}.py" for name in ("clients", "backends")),
}


@pytest.fixture(scope="module")
def package() -> Path:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    return compiled()


def in_it(package: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **variables(package)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_hot_path_is_compiled_and_the_rest_is_as_it_was(package: Path) -> None:
    names = "from proxy.relay import context, worker; print(context.__file__, worker.__file__)"
    compiled_file, plain_file = in_it(package, "-c", names).stdout.split()
    assert [Path(file).suffix for file in (compiled_file, plain_file)] == [".so", ".py"]
    assert Path(compiled_file).parent == Path(plain_file).parent == package / "proxy" / "relay"


@pytest.mark.parametrize("group", TESTED)
def test_it_passes_the_tests_of_its_sources(package: Path, group: str) -> None:
    ran = in_it(
        package,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not bench and not engines",
        *TESTED[group],
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
