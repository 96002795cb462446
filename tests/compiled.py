"""The package as its compiled build holds it (setup.py): built by pip, once for each state of the sources.

``variables`` puts it before the sources for a process and for those that it starts.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
_FOLDER = ROOT / "build" / "compiled"
_FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
_PACKAGES = ("proxy", "loadgen")
_PINNED = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")  # of what a build needs: the latter from pip 25.3 on


def why_not() -> str | None:
    """Why it cannot be built here; None: it can."""
    return None if shutil.which("cc") else "no C compiler (cc)"


def variables(package: Path) -> Mapping[str, str]:
    """Of a process that is to import ``package``, and this folder's tests, but none of its sources."""
    places = (str(package), str(ROOT), sysconfig.get_path("platlib"))  # the last for another Python than ours
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}


def fast_python() -> Path:
    """Return the distribution's Python if it has our version, as the peers are its builds; else ours."""
    theirs = Path("/usr/bin/python3")
    if not theirs.exists():
        return Path(sys.executable)
    said = subprocess.run([theirs, "--version"], capture_output=True, text=True, check=True).stdout
    ours = f"Python {sys.version_info.major}.{sys.version_info.minor}."
    return theirs if said.startswith(ours) else Path(sys.executable)


def compiled() -> Path:
    """Return the folder with ``proxy`` and ``loadgen``; raises ``CalledProcessError`` if pip fails."""
    built = _FOLDER / _digest()
    with _locked():
        if not built.exists():  # older ones stay, for they may be running
            _build(built)
    return built


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process build while others that need the same build wait for it."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(built: Path) -> None:
    """Compile a copy of the sources, as a build leaves files among them; move the result to ``built``."""
    pinned = dict.fromkeys(_PINNED, str(ROOT / "constraints.txt"))
    with TemporaryDirectory(dir=_FOLDER) as folder:
        sources, made = Path(folder, "sources"), Path(folder, "made")
        sources.mkdir()
        for name in _FILES:
            shutil.copy(ROOT / name, sources)
        for name in _PACKAGES:
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(
            [*(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"),
             *("--no-deps", "--target", str(made), str(sources))],
            env={**os.environ, **pinned, "JOULEPROXY_COMPILE": "1"},
            check=True,
        )  # fmt: skip
        made.rename(built)


def _digest() -> str:
    found = hashlib.sha256(sys.version.encode())
    for name in _FILES[:2]:
        found.update((ROOT / name).read_bytes())
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in {".py", ".c"}:
                found.update(str(path).encode() + path.read_bytes())
    return found.hexdigest()[:16]
