"""The compiled build of the hot path: the same source as C extensions, by mypyc.

``JOULEPROXY_COMPILE=1 pip install .`` asks for it and needs a C compiler; else the package is pure Python.
All other settings are in pyproject.toml.
"""

import os
from pathlib import Path
from typing import Final

from setuptools import setup

ROOT: Final = Path(__file__).parent
PACKAGES: Final = ("proxy", "loadgen")

# First line of each module that is compiled: those that run for every request and every chunk. A module that
# defines a msgspec.Struct cannot carry it, because msgspec finds the fields of a struct at run time. A class
# becomes native (its attributes are slots in C) unless it inherits from an interpreted class; a dataclass
# keeps an interpreted __init__. So an object that is created for every request is of neither kind.
MARKER: Final = "# Compiled by mypyc: see setup.py.\n"


def compiled_modules() -> list[str]:
    """Return the paths, relative to this file, of the modules whose first line is ``MARKER``."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            with path.open(encoding="utf-8") as source:
                if source.readline() == MARKER:
                    found.append(path.relative_to(ROOT).as_posix())
    return found


if os.environ.get("JOULEPROXY_COMPILE") != "1":
    setup()
else:
    try:
        from mypyc.build import mypycify
    except ImportError as error:
        setup(setup_requires=["mypy>=1.18"])  # to pip's question what this build needs, this is the answer
        raise SystemExit("JOULEPROXY_COMPILE=1 needs mypy: pip install mypy") from error
    options = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")
    modules = mypycify([*options, *compiled_modules()], opt_level="2", group_name="jouleproxy")
    setup(ext_modules=modules)
